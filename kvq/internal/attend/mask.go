package attend

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Masked is added to the score of a token that a query must not see. It is finite, so that a row of
// nothing but padding gives a finite average instead of NaN, and far below any score, so that exp
// gives exactly 0 beside a visible token.
const Masked = -1e30

// Mask is what is added to the scores of stored tokens: 0 where a query sees them, Masked
// elsewhere. A query sees a token that is known (its index is not negative), not after its own, and
// inside the sliding window (0: no limit).
//
//	index [B, N] int32 of stored tokens, position [B, t] int32 of the queries, both counted from the
//	row's first real token -> [B, t, N] float32
func Mask(index, position *Node, slidingWindow int) *Node {
	return MaskOf(visibleTokens(index, position, slidingWindow))
}

// MaskOf is what is added to scores: 0 where visible, else Masked.
func MaskOf(visible *Node) *Node {
	shape := shapes.Make(dtypes.Float32, visible.Shape().Dimensions...)
	g := visible.Graph()
	return Where(visible, gx.Zeros(g, shape), gx.Fill(g, shape, Masked))
}

// visibleTokens says which stored tokens a query sees: see Mask. bool [B, t, N].
func visibleTokens(index, position *Node, slidingWindow int) *Node {
	g := index.Graph()
	b, n, t := index.Shape().Dim(0), index.Shape().Dim(1), position.Shape().Dim(1)
	index = gx.BroadcastToDims(Reshape(index, b, 1, n), b, t, n)
	position = gx.BroadcastToDims(Reshape(position, b, t, 1), b, t, n)
	visible := And(GreaterOrEqual(index, gx.Zeros(g, index.Shape())), LessOrEqual(index, position))
	if slidingWindow > 0 {
		oldest := gx.AddScalar(position, 1-slidingWindow)
		visible = And(visible, GreaterOrEqual(index, oldest))
	}
	return visible
}

// TokenIndex numbers t slots from slot first (int32 scalar, or [B]: a slot for each row): the index
// in the row is slot - start.
//
//	start [B] int32: padding of each row -> [B, t] int32, negative for padding
func TokenIndex(start, first *Node, t int) *Node {
	g, b := start.Graph(), start.Shape().Dim(0)
	if first.Rank() > 0 {
		first = gx.BroadcastToDims(Reshape(first, b, 1), b, t)
	}
	slot := Add(Iota(g, shapes.Make(dtypes.Int32, b, t), 1), first)
	return Sub(slot, gx.BroadcastToDims(Reshape(start, b, 1), b, t))
}

// FoldMask repeats a mask [B, t, N] for the q queries that share a key/value head, [B, 1, Q, N]. A
// mask [B, H, t, N], one for each query head, becomes [B, K, Q, N]. A mask of one token is that of
// all.
func FoldMask(mask *Node, kvHeads, q int) *Node {
	if mask.Rank() == 4 {
		d := dims(mask)
		mask = gx.BroadcastToDims(mask, d[0], d[1], kvHeads*q/d[1], d[3])
		return Reshape(mask, d[0], kvHeads, q, d[3])
	}
	b, t, n := mask.Shape().Dim(0), mask.Shape().Dim(1), mask.Shape().Dim(2)
	return Reshape(gx.BroadcastToDims(Reshape(mask, b, 1, t, n), b, q/t, t, n), b, 1, q, n)
}
