package codes

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Format is how keys or values of a layer are coded: how codes lie, and what they stand for. It is
// comparable: layers of equal format are coded by the same operations.
type Format struct {
	Layout
	Spec   numbers.Spec
	Rotate bool // keys or values are rotated before they are coded

	// TokenScales has keys of per-channel groups have a scale for each token too: value =
	// token·(scale·code + zero). It multiplies a score after the sum over channels.
	TokenScales bool

	// Feedback rounds with the errors of other channels fed back: see [Format.EncodeFed]. It
	// changes which codes are made, not how they lie.
	Feedback bool
}

// New makes the format for heads of headDim elements, in groups of so many values.
func New(spec numbers.Spec, headDim, group int, perChannel, rotate bool) Format {
	layout := Layout{
		Keys: spec.Keys, HeadDim: headDim, Bits: spec.Bits, Packed: spec.Quantizer.Packed(), Group: group, PerChannel: perChannel,
	}
	if !layout.Packed { // one scale per token and head
		layout.Group, layout.PerChannel = headDim, false
	}
	return Format{Layout: layout, Spec: spec, Rotate: rotate}
}

// HasZeros tells whether groups have a zero point beside their scale.
func (f Format) HasZeros() bool { return f.Spec.Quantizer.Zeros }

// Encode turns keys or values into blocks of codes.
//
//	x      [B, K, T, D]; T is a multiple of 32, and of the group where groups run along tokens
//	valid  nil, or bool [B, T]: a token that is not valid has no vote in the range of its group
func (f Format) Encode(x, valid *Node) Blocks { return f.EncodeFed(x, valid, nil) }

// EncodeFed is Encode with feedback between the channels of a head: factor [B, K, D, D] float32 is
// what [numbers.Factor] makes of a metric of x as it is coded, rotated where that is. Heads whose
// factor is 0, and all where it is nil, are coded as without it. Scales and zero points are the
// same either way.
func (f Format) EncodeFed(x, valid, factor *Node) Blocks {
	// Tokens before heads, as a product makes them.
	turned := Transpose(x, 1, 2)
	if e, ok := f.encoderOf(turned, dims(x)[2], dims(x)[2], valid, factor); ok {
		return e.encode(turned, gx.Zeros(x.Graph(), shapes.Make(dtypes.Int32, dims(x)[0])), valid, factor)
	}
	if f.Rotate {
		x = numbers.Rotate(x)
	}
	return f.encodeByGraph(x, valid, factor)
}

// EncodeRows is EncodeFed for n tokens of each row of x [B, K, T, D], from first [B] int32 on; past
// the end of a row its last token repeats. The blocks are for so many slots, and empty beyond the
// tokens. ok is false where the tokens have to be brought side by side first.
func (f Format) EncodeRows(x, first *Node, n, slots int, valid, factor *Node) (blocks Blocks, ok bool) {
	turned := Transpose(x, 1, 2)
	e, ok := f.encoderOf(turned, n, slots, valid, factor)
	if !ok {
		return Blocks{}, false
	}
	return e.encode(turned, first, valid, factor), true
}

// encodeByGraph is EncodeFed by graph operations, of what is rotated where it is to be.
func (f Format) encodeByGraph(x, valid, factor *Node) Blocks {
	d := dims(x)
	b, k, t, dim := d[0], d[1], d[2], d[3]
	grouped, axis := []int{b, k, t, f.Groups(), dim / f.Groups()}, 4
	if f.PerChannel {
		grouped, axis = []int{b, k, t / f.Group, f.Group, dim}, 3
	}
	if valid != nil {
		split := []int{b, 1, t, 1, 1}
		if f.PerChannel {
			split = []int{b, 1, t / f.Group, f.Group, 1}
		}
		valid = gx.BroadcastToDims(Reshape(valid, split...), grouped...)
	}
	spec, x := f.Spec, Reshape(x, grouped...)
	var tokens, weights *Node
	if f.TokenScales {
		spec.Scales = spec.Scales.Storage(x.DType())
		tokens, x, valid = tokenScales(x, valid)
		weights = numbers.TokenWeights(tokens)
	}
	codes, scales, zeros, width := spec.EncodeWidth(x, axis, valid, weights)
	if factor != nil {
		codes = f.fed(spec, x, valid, codes, scales, zeros, width, factor)
	}
	n := t / BlockTokens
	order := []int{2, 0, 1, 4, 3} // [n, B, K, D, 32]
	if !f.Keys {
		order = []int{2, 0, 1, 3, 4}
	}
	codes = TransposeAllAxes(Reshape(codes, b, k, n, BlockTokens, dim), order...)
	if f.Packed {
		codes = gx.Alone([]*Node{codes}, func(in []*Node) []*Node { return []*Node{f.pack(in[0])} })[0]
	}
	scaleBlocks := func(x *Node) *Node {
		if x == nil {
			return nil
		}
		if f.PerChannel {
			return TransposeAllAxes(Reshape(x, b, k, t/f.Group, dim), 2, 0, 1, 3)
		}
		return TransposeAllAxes(Reshape(x, b, k, n, BlockTokens, f.Groups()), 2, 0, 1, 4, 3)
	}
	blocks := Blocks{Codes: codes, Scales: scaleBlocks(scales), Zeros: scaleBlocks(zeros)}
	if tokens != nil {
		blocks.Tokens = TransposeAllAxes(Reshape(tokens, b, k, n, 1, BlockTokens), 2, 0, 1, 3, 4)
	}
	return blocks
}

// tokenScales is [numbers.TokenScales] by itself.
func tokenScales(x, valid *Node) (scales, units, voting *Node) {
	out := gx.Alone([]*Node{x, valid}, func(in []*Node) []*Node {
		scales, units, voting := numbers.TokenScales(in[0], in[1])
		return []*Node{scales, units, voting}
	})
	return out[0], out[1], out[2]
}

// fed makes the codes of heads with a factor anew, for the scales and zero points that there are.
// x, valid and codes are split into groups; width may be nil.
func (f Format) fed(spec numbers.Spec, x, valid, codes, scales, zeros, width, factor *Node) *Node {
	d, t := dims(x), dims(factor)
	b, k, dim := t[0], t[1], t[3]
	scale, zero := spec.ScaleAndZero(scales, zeros)
	x = Reshape(ConvertDType(x, dtypes.Float32), b, k, -1, dim)
	ofGroup := func(x *Node) *Node { return Reshape(x, b, k, d[2], -1) }
	if width != nil {
		width = ofGroup(width)
	}
	made := Reshape(numbers.Feedback(x, ofGroup(scale), ofGroup(zero), width, factor, f.Bits), d...)
	used := gx.GreaterThanScalar(gx.ReduceMaxAndKeep(Abs(factor), 2, 3), 0)
	used = gx.BroadcastToDims(Reshape(used, b, k, 1, 1, 1), d...)
	if valid != nil {
		used = And(used, valid)
	}
	return Where(used, made, codes)
}

// Decode is the way back: blocks -> [B, K, T, D] float32, still rotated.
func (f Format) Decode(x Blocks) *Node {
	codes := f.apart(x.Codes)
	d := dims(codes)
	n, b, k, dim := d[0], d[1], d[2], d[4]
	// scales beside codes [n, B, K, 32, D/G, G] or [n/…, …, B, K, 32, D]
	tokensFirst := func(x *Node) *Node {
		if f.PerChannel {
			return Reshape(x, n*BlockTokens/f.Group, 1, b, k, 1, dim)
		}
		return Reshape(swapLast(x), n, b, k, BlockTokens, f.Groups(), 1)
	}
	shape := []int{n, b, k, BlockTokens, f.Groups(), dim / f.Groups()}
	if f.PerChannel {
		shape = []int{n * BlockTokens / f.Group, f.Group / BlockTokens, b, k, BlockTokens, dim}
	}
	scale, zero := f.Spec.ScaleAndZero(x.Scales, x.Zeros)
	full := func(x *Node) *Node { return gx.BroadcastToDims(tokensFirst(x), shape...) }
	y := Mul(f.Spec.Numbers(Reshape(codes, shape...)), full(scale))
	if zero != nil {
		y = Add(y, full(zero))
	}
	y = Reshape(y, n, b, k, BlockTokens, dim)
	if x.Tokens != nil {
		tokens := swapLast(numbers.DecodeTokenScales(x.Tokens))
		y = Mul(y, gx.BroadcastToDims(tokens, n, b, k, BlockTokens, dim))
	}
	return tokensInARow(y)
}

// Numbers gives the codes of blocks as what they stand for in units of the scale, before the zero
// point and without scales of tokens: float32 [B, K, T, D].
func (f Format) Numbers(x Blocks) *Node {
	return tokensInARow(f.Spec.Numbers(f.apart(x.Codes)))
}

// apart takes words apart and puts tokens before channels: a number a code, [n, B, K, 32, D].
func (f Format) apart(codes *Node) *Node {
	if f.Packed {
		codes = f.unpack(codes)
	}
	if f.Keys {
		codes = swapLast(codes)
	}
	return codes
}

// tokensInARow puts blocks [n, B, K, 32, D] one after the other: [B, K, T, D].
func tokensInARow(x *Node) *Node {
	d := dims(x)
	return Reshape(TransposeAllAxes(x, 1, 2, 0, 3, 4), d[1], d[2], d[0]*BlockTokens, d[4])
}

func swapLast(x *Node) *Node { return Transpose(x, -1, -2) }

func dims(x *Node) []int { return x.Shape().Dimensions }

// concat is Concatenate that leaves a single part alone.
func concat(parts []*Node, axis int) *Node {
	if len(parts) == 1 {
		return parts[0]
	}
	return Concatenate(parts, axis)
}
