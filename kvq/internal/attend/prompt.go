package attend

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// PromptBlock is the number of query tokens that look at the prompt at once: the scores of one
// block, not T x T of them, are alive.
const PromptBlock = 256

// Prompt is exact causal attention of a prompt over itself: what prefill sees, whatever the cache
// will keep of it.
//
//	queries [B, H, T, D], keys and values [B, K, T, D], start [B] int32: padding of each row
//	-> [B, H, T, D] in the dtype of queries
func Prompt(queries, keys, values, start *Node, slidingWindow int) *Node {
	s := queries.Shape()
	b, h, t, d := s.Dim(0), s.Dim(1), s.Dim(2), s.Dim(3)
	index := TokenIndex(start, gx.Scalar(start.Graph(), dtypes.Int32, 0), t) // [B, T]
	if t <= 2*PromptBlock {
		return promptBlock(queries, keys, values, index, index, slidingWindow)
	}
	// Blocks of queries, each against all keys. The last block is shifted back so that it is whole;
	// some rows are computed twice. The output starts as the queries, of which every row is
	// overwritten: as zeros, which are ready at once, XLA makes those of all layers before the
	// first layer.
	blocks := (t + PromptBlock - 1) / PromptBlock
	g := queries.Graph()
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	state := gx.Loop(
		[]*Node{zero(), queries, index, queries, keys, values},
		func(st []*Node) *Node { return LessThan(st[0], gx.Scalar(g, dtypes.Int32, blocks)) },
		func(st []*Node) []*Node {
			i, out, index, queries, keys, values := st[0], st[1], st[2], st[3], st[4], st[5]
			from := Min(gx.MulScalar(i, PromptBlock), gx.Scalar(g, dtypes.Int32, t-PromptBlock))
			q := DynamicSlice(queries, []*Node{zero(), zero(), from, zero()}, []int{b, h, PromptBlock, d})
			position := DynamicSlice(index, []*Node{zero(), from}, []int{b, PromptBlock})
			o := promptBlock(q, keys, values, index, position, slidingWindow)
			out = DynamicUpdateSlice(out, o, []*Node{zero(), zero(), from, zero()})
			return []*Node{gx.AddScalar(i, 1), out, index, queries, keys, values}
		})
	return state[1]
}

// promptBlock is attention of some of a prompt's queries over all of it.
//
//	queries [B, H, t, D], keys and values [B, K, T, D], index [B, T] of the keys and position [B, t] of
//	the queries, see [Mask] -> [B, H, t, D]
func promptBlock(queries, keys, values, index, position *Node, slidingWindow int) *Node {
	q := FoldQueries(queries, keys.Shape().Dim(1))
	scores := scoresOf(q, keys)
	scores = Add(scores, FoldMask(Mask(index, position, slidingWindow), q.Shape().Dim(2)))
	p := NewPartial(scores, func(w *Node) *Node { return weightedSum(w, values) })
	return UnfoldQueries(p.Result(), queries)
}
