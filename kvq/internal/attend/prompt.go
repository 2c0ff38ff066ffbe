package attend

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// PromptBlock is the number of query tokens that look at the prompt at once: the scores of one
// block, not T x T of them, are alive.
const PromptBlock = 256

// Prompt is exact attention of a prompt over itself: what prefill sees, whatever the cache will
// keep of it.
//
//	queries [B, H, t, D], keys [B, K, T, D], values [B, K, T, E], index [B, T] int32 of the keys, see
//	[Mask] -> [B, H, t, E] in the dtype of queries
func (s Scores) Prompt(queries, keys, values, index *Node, view View) *Node {
	b, h, t, d := dims(queries)[0], dims(queries)[1], dims(queries)[2], dims(queries)[3]
	if t <= 2*PromptBlock {
		return s.promptBlock(queries, keys, values, index, view)
	}
	// Blocks of queries, each against all keys. The last block is shifted back so that it is whole;
	// some rows are computed twice. The output starts as the queries, of which every row is
	// overwritten: as zeros, which are ready at once, XLA makes those of all layers before the
	// first layer.
	blocks := (t + PromptBlock - 1) / PromptBlock
	g := queries.Graph()
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	state := gx.Loop(
		append([]*Node{zero(), outputsLike(queries, dims(values)[3]), index, queries, keys, values}, view.nodes(index)...),
		func(st []*Node) *Node { return LessThan(st[0], gx.Scalar(g, dtypes.Int32, blocks)) },
		func(st []*Node) []*Node {
			i, out, carried, queries, keys, values := st[0], st[1], st[2], st[3], st[4], st[5]
			from := Min(gx.MulScalar(i, PromptBlock), gx.Scalar(g, dtypes.Int32, t-PromptBlock))
			q := gx.DynamicSlice(queries, []*Node{zero(), zero(), from, zero()}, []int{b, h, PromptBlock, d})
			o := s.promptBlock(q, keys, values, carried, view.take(index, carried, st[6:]).queries(from, PromptBlock))
			out = DynamicUpdateSlice(out, o, []*Node{zero(), zero(), from, zero()})
			return append([]*Node{gx.AddScalar(i, 1), out}, st[2:]...)
		})
	return state[1]
}

// outputsLike makes of queries [B, H, t, D] an array [B, H, t, e].
func outputsLike(queries *Node, e int) *Node {
	d := dims(queries)
	switch {
	case e < d[3]:
		return Slice(queries, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, e))
	case e > d[3]:
		return Concatenate([]*Node{queries, gx.Zeros(queries.Graph(), shapes.Make(queries.DType(), d[0], d[1], d[2], e-d[3]))}, 3)
	}
	return queries
}

// promptBlock is attention of some of a prompt's queries over all of it: see Prompt.
func (s Scores) promptBlock(queries, keys, values, index *Node, view View) *Node {
	q := FoldQueries(queries, keys.Shape().Dim(1), s.Scale)
	scores := scoresOf(q, keys)
	scores = s.Finish(scores, view.Of(index), dims(q)[1], false)
	p := NewPartial(scores, func(w *Node) *Node { return weightedSum(w, values) })
	return UnfoldQueries(p.Result(), queries)
}
