package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Scales of tokens stand beside the scales of channels: with both, neither a loud token nor a loud
// channel widens the ranges of the others.
//
//	value = token·(scale·code + zero)
//
// They are found by dual scaling (KVarN, arXiv 2606.03458, which takes standard deviations): tokens
// and channels are brought to a root mean square of 1 in turns. What channels are divided by is
// then thrown away, since a quantizer finds their scales. Squares are not taken about the mean:
// a token's scale multiplies its mean too, and tokens that are constant multiples of one another
// have no deviation.

// TokenScaleRounds is how many times tokens are brought to unit size.
const TokenScaleRounds = 3

// TokenScales finds a scale for each token of a group, and divides by it.
//
//	x       [..., G, D], float32, float16 or bfloat16: G tokens of D channels
//	valid   nil, or booleans of x's shape: the others have no vote
//	scales  uint8 [..., G, 1]: bytes as those of [Scale8]. The largest of a group is 1
//	units   float32, x's shape: x / scale, with the scale as stored
//	voting  booleans of x's shape: valid, and of a token whose scale is not 0
//
// A token of zeros, or of less than 2^-13 of the group's largest, has scale 0: it comes back as
// zeros, and its elements have no vote in the range of a channel.
func TokenScales(x, valid *Node) (scales, units, voting *Node) {
	x, usable := voters(x, valid)
	zeros := gx.ZerosLike(x)
	size := Where(usable, Abs(x), zeros)
	// In units of the largest magnitude: then no square leaves float32.
	size = Div(size, gx.MinScalar(positiveOr1(gx.ReduceMaxAndKeep(size, -1, -2)), largestDivisor))
	squares := Square(size)
	token := dualScaling(squares)
	token = Div(token, positiveOr1(gx.ReduceMaxAndKeep(token, -2)))
	scales = byteOfScale(byteScale.roundNearest(token))
	scale := fromByteScale(scales)
	wide := gx.BroadcastToDims(positiveOr1(scale), x.Shape().Dimensions...)
	units = Where(IsFinite(x), gx.ClampScalar(Div(x, wide), -math.MaxFloat32, math.MaxFloat32), x)
	voting = gx.BroadcastToDims(gx.GreaterThanScalar(scale, 0), x.Shape().Dimensions...)
	if valid != nil {
		voting = And(voting, valid)
	}
	return scales, units, voting
}

// dualScaling gives the sizes of tokens, [..., G, 1], for which the squares [..., G, D] of tokens
// and of channels become 1 on average.
func dualScaling(squares *Node) *Node {
	tokens, channels := squares.Shape().Dim(-2), squares.Shape().Dim(-1)
	mean := func(x *Node, axis, n int) *Node { return gx.MulScalar(gx.ReduceSumAndKeep(x, axis), 1/float64(n)) }
	token := mean(squares, -1, channels)
	for range TokenScaleRounds - 1 {
		channel := mean(Div(squares, positiveOr1(token)), -2, tokens)
		token = mean(Div(squares, positiveOr1(channel)), -1, channels)
	}
	return Sqrt(token)
}

// TokenWeights is what errors of tokens count, by their scales as stored, when ranges of channels
// are compared ([Spec.EncodeWidth]): 1 / scale², float32, and 1 for a token that has no vote. In
// true size an error would count scale times as much as in units. But a token with a short key is
// often one of those few that most of the attention goes to, as the first ones of a row do: there
// is little room for it where all others lie, so a range that is narrow for their sake cuts it off,
// and in every channel to the same side. (Figures: docs/bench-log.md.)
func TokenWeights(scales *Node) *Node {
	scale := positiveOr1(fromByteScale(scales))
	return Div(gx.OnesLike(scale), Square(scale))
}

// DecodeTokenScales gives back stored scales of tokens as float32.
func DecodeTokenScales(scales *Node) *Node { return fromByteScale(scales) }

// TokenScaleType is the dtype in which they are stored.
const TokenScaleType = dtypes.Uint8
