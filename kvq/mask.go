package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// masked is added to the score of a token that a query must not see. Finite, so that a row of nothing but padding gives a finite
// average instead of NaN, and far below any score, so that exp gives exactly 0 beside a visible token.
const masked = -1e30

// bias turns a bool mask into what is added to scores: 0 where visible, masked elsewhere. Float32, same shape.
func bias(visible *Node) *Node {
	g := visible.Graph()
	return Where(visible, gx.Zeros(g, shapes.Make(dtypes.Float32, visible.Shape().Dimensions...)),
		gx.Fill(g, shapes.Make(dtypes.Float32, visible.Shape().Dimensions...), masked))
}

// visibleTokens says which stored tokens a query may see: the stored token's index in its row is known (not negative), not after the
// query's own, and inside the sliding window.
//
// index [B, N] int32 and position [B, t] int32, both counted from the row's first real token -> bool [B, t, N].
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
