package gx

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// Inside returns x, a node of an enclosing function, as a value of the function that is being
// built, so that it may be used elementwise there: a dynamic slice over all of it, which XLA
// removes. x must not be a scalar.
func Inside(x *graph.Node) *graph.Node {
	start := make([]*graph.Node, x.Rank())
	for i := range start {
		start[i] = Scalar(x.Graph(), dtypes.Int32, 0)
	}
	return DynamicSlice(x, start, x.Shape().Dimensions)
}
