package attend

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// scoresOfCodes is the key of a function.
type scoresOfCodes struct{ codes.Format }

// words is attention of one token over all blocks at once: the codes are read, multiplied and
// summed in two passes, one over keys and one over values. Between them are only the scores.
func (c Coded) words(q *Node) Partial {
	sums := codes.NewSums(c.Length)
	// A function, whose result is stored: otherwise XLA's CPU compiler makes the scores twice, for
	// the largest and for the weights.
	in := append([]*Node{q, c.Length, c.Mask}, c.Keys.Nodes()...) // mask: [B, 1, N*32]
	scores := c.Functions.Call(scoresOfCodes{c.Key}, in, func(in []*Node) []*Node {
		keys, _ := c.Key.Take(in[3:])
		scores := c.Key.Scores(in[0], keys, codes.NewSums(in[1])) // [N, B, K, Q, 32]
		d := dims(scores)
		mask := TransposeAllAxes(Reshape(in[2], d[1], d[0], codes.BlockTokens), 1, 0, 2)
		mask = Reshape(mask, d[0], d[1], 1, 1, codes.BlockTokens)
		return []*Node{Add(scores, gx.BroadcastToDims(mask, d...))}
	})[0]
	d := dims(scores)
	column := func(x *Node) *Node { return Reshape(x, d[1], d[2], d[3], 1) }
	top := gx.ReduceMaxAndKeep(scores, 0, 4)
	weights := Exp(Sub(scores, top))
	return Partial{
		Max: column(top),
		Sum: column(gx.ReduceSum(sums.Blocks(weights), 3)),
		Out: c.Value.WeightedSum(weights, c.Values, sums),
	}
}
