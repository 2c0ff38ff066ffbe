package gx

import (
	"github.com/gomlx/gomlx/core/graph"
)

// BroadcastToDims is graph.BroadcastToDims in fewer operations: none where the shape is the one
// wanted, and one broadcast of what has no axes of size 1, where go-xla's becomes two and a
// reshape. XLA removes them again, but that is much of its time to compile.
func BroadcastToDims(x *graph.Node, dims ...int) *graph.Node {
	if x.Rank() != len(dims) || x.IsScalar() {
		return graph.BroadcastToDims(x, dims...)
	}
	var kept, grown []int
	for axis, d := range x.Shape().Dimensions {
		if d == dims[axis] {
			kept = append(kept, d)
		} else {
			grown = append(grown, axis)
		}
	}
	if len(grown) == 0 {
		return x
	}
	for _, axis := range grown {
		if x.Shape().Dim(axis) != 1 {
			return graph.BroadcastToDims(x, dims...) // which reports the error
		}
	}
	return graph.ExpandAndBroadcast(graph.Reshape(x, kept...), dims, grown)
}
