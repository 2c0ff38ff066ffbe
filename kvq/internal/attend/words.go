package attend

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// scoresOfCodes is the key of a function. All layers of a cache share their [Scores].
type scoresOfCodes struct{ codes.Format }

// words is attention of one token over all blocks at once: the codes are read, multiplied and
// summed in two passes, one over keys and one over values. Between them are only the scores.
func (c Coded) words(q *Node) Partial {
	sums := codes.NewSums(c.Length)
	// A function, whose result is stored: otherwise XLA's CPU compiler makes the scores twice, for
	// the largest and for the weights.
	in := append(append([]*Node{q, c.Length}, c.Seen.Nodes()...), c.Keys.Nodes()...)
	scores := c.Functions.Call(scoresOfCodes{c.Key}, in, func(in []*Node) []*Node {
		seen, rest := c.Scores.Take(in[2:])
		keys, _ := c.Key.Take(rest)
		scores := c.Key.Scores(in[0], keys, codes.NewSums(in[1])) // [N, B, K, Q, 32]
		return []*Node{c.Scores.ofBlocks(scores, seen)}
	})[0]
	d := dims(scores)
	column := func(x *Node) *Node { return Reshape(x, d[1], d[2], d[3], 1) }
	top := gx.ReduceMax(scores, 0, 4)
	weights := c.weights(scores, top)
	return Partial{
		Max: column(top),
		Sum: column(gx.ReduceSum(sums.Blocks(weights), 3)),
		Out: c.Value.WeightedSum(weights, c.Values, sums),
	}
}

// weightsOfCodes is the key of a function.
type weightsOfCodes struct{}

// weights are exp(scores - top): scores [N, B, K, Q, 32], top [B, K, Q].
//
// A function, over blocks whose other axes are one: a loop over 32 tokens is short enough for XLA's
// CPU compiler to write it out, and what is written out is not vectorized. That took as long as
// half of the products with the keys.
func (c Coded) weights(scores, top *Node) *Node {
	d := dims(scores)
	wide := gx.BroadcastToDims(Reshape(top, d[1], d[2], d[3], 1), d[1:]...)
	flat := c.Functions.Call(weightsOfCodes{}, []*Node{scores, wide}, func(in []*Node) []*Node {
		rows := Reshape(in[0], d[0], -1)
		return []*Node{Exp(Sub(rows, gx.BroadcastToDims(Reshape(in[1], 1, -1), dims(rows)...)))}
	})[0]
	return Reshape(flat, d...)
}

// ofBlocks makes scores of products of single queries with blocks of keys, [N, B, K, Q, 32].
func (s Scores) ofBlocks(products *Node, seen Seen) *Node {
	d := dims(products)
	fold := func(x *Node) *Node { // [B, 1, N*32], or one for each query head
		if x.Rank() == 4 {
			x = TransposeAllAxes(Reshape(x, d[1], d[2], d[3], d[0], codes.BlockTokens), 3, 0, 1, 2, 4)
			return x
		}
		x = TransposeAllAxes(Reshape(x, d[1], d[0], codes.BlockTokens), 1, 0, 2)
		x = Reshape(x, d[0], d[1], 1, 1, codes.BlockTokens)
		return gx.BroadcastToDims(x, d...)
	}
	var slopes *Node
	if seen.Distance != nil {
		slopes = Reshape(s.slopes(products.Graph(), d[2], d[3]), 1, 1, d[2], d[3], 1)
	}
	return s.of(products, seen, slopes, fold)
}
