package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// promptBlock is the number of query tokens that look at the prompt at once: the scores of one block, not T x T of them, are alive.
const promptBlock = 256

// attendPrompt is exact causal attention of a prompt over itself: what prefill sees, whatever the cache will keep of it.
//
//	queries [B, H, T, D], keys and values [B, K, T, D], start [B] int32: padding of each row -> [B, H, T, D] in the dtype of queries.
func attendPrompt(queries, keys, values, start *Node, slidingWindow int) *Node {
	s := queries.Shape()
	b, h, t, d := s.Dim(0), s.Dim(1), s.Dim(2), s.Dim(3)
	index := tokenIndex(start, gx.Scalar(start.Graph(), dtypes.Int32, 0), t) // [B, T]
	if t <= 2*promptBlock {
		return attendExact(queries, keys, values, index, index, slidingWindow)
	}
	// Blocks of queries, each against all keys; the last block is shifted back so that it is whole (some rows are computed twice). The output starts as
	// the queries, of which every row is overwritten: as zeros, which are ready at once, XLA makes those of all layers before the first layer.
	blocks := (t + promptBlock - 1) / promptBlock
	g := queries.Graph()
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	state := gx.Loop(
		[]*Node{zero(), queries, index, queries, keys, values},
		func(st []*Node) *Node { return LessThan(st[0], gx.Scalar(g, dtypes.Int32, blocks)) },
		func(st []*Node) []*Node {
			i, out, index, queries, keys, values := st[0], st[1], st[2], st[3], st[4], st[5]
			from := Min(gx.MulScalar(i, promptBlock), gx.Scalar(g, dtypes.Int32, t-promptBlock))
			q := DynamicSlice(queries, []*Node{zero(), zero(), from, zero()}, []int{b, h, promptBlock, d})
			position := DynamicSlice(index, []*Node{zero(), from}, []int{b, promptBlock})
			o := attendExact(q, keys, values, index, position, slidingWindow)
			out = DynamicUpdateSlice(out, o, []*Node{zero(), zero(), from, zero()})
			return []*Node{gx.AddScalar(i, 1), out, index, queries, keys, values}
		})
	return state[1]
}

// attendExact is attention over full-precision keys and values with known token indices.
//
//	queries [B, H, t, D], keys and values [B, K, N, D], index [B, N] of the keys and position [B, t] of the queries, int32 and counted
//	from the row's first real token (negative: padding or nothing) -> [B, H, t, D].
func attendExact(queries, keys, values, index, position *Node, slidingWindow int) *Node {
	q := foldQueries(queries, keys.Shape().Dim(1))
	scores := scoresOf(q, keys)
	scores = Add(scores, foldBias(bias(visibleTokens(index, position, slidingWindow)), q.Shape().Dim(2)))
	p := newPartial(scores, func(w *Node) *Node { return weighedSum(w, values) })
	return unfoldQueries(p.result(), queries)
}

// tokenIndex numbers t slots from slot first: index in the row = slot - start, [B, t] int32; negative for padding.
func tokenIndex(start, first *Node, t int) *Node {
	g, b := start.Graph(), start.Shape().Dim(0)
	slot := Add(Iota(g, shapes.Make(dtypes.Int32, b, t), 1), first)
	return Sub(slot, gx.BroadcastToDims(Reshape(start, b, 1), b, t))
}
