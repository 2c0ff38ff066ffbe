package gx

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// ReduceSum is graph.ReduceSum, in any number of functions of one graph.
func ReduceSum(x *graph.Node, axes ...int) *graph.Node { return reduce(graph.ReduceSum, x, axes) }

// ReduceMax is graph.ReduceMax, in any number of functions of one graph. NaN wins.
func ReduceMax(x *graph.Node, axes ...int) *graph.Node { return reduce(graph.ReduceMax, x, axes) }

// ReduceMin is graph.ReduceMin, in any number of functions of one graph. NaN wins.
func ReduceMin(x *graph.Node, axes ...int) *graph.Node { return reduce(graph.ReduceMin, x, axes) }

// LogicalAll is graph.LogicalAll, in any number of functions of one graph.
func LogicalAll(x *graph.Node, axes ...int) *graph.Node { return reduce(graph.LogicalAll, x, axes) }

// LogicalAny is graph.LogicalAny, in any number of functions of one graph.
func LogicalAny(x *graph.Node, axes ...int) *graph.Node { return reduce(graph.LogicalAny, x, axes) }

// ReduceSumAndKeep is ReduceSum whose reduced axes stay with size 1.
func ReduceSumAndKeep(x *graph.Node, axes ...int) *graph.Node {
	return graph.ReduceAndKeep(x, ReduceSum, axes...)
}

// ReduceMaxAndKeep is ReduceMax whose reduced axes stay with size 1.
func ReduceMaxAndKeep(x *graph.Node, axes ...int) *graph.Node {
	return graph.ReduceAndKeep(x, ReduceMax, axes...)
}

// ReduceMinAndKeep is ReduceMin whose reduced axes stay with size 1.
func ReduceMinAndKeep(x *graph.Node, axes ...int) *graph.Node {
	return graph.ReduceAndKeep(x, ReduceMin, axes...)
}

// ReduceMeanAndKeep returns the mean over the given axes, which stay with size 1. The sum is
// divided by the count.
func ReduceMeanAndKeep(x *graph.Node, axes ...int) *graph.Node {
	sum := ReduceSumAndKeep(x, axes...)
	return DivScalar(sum, x.Shape().Size()/sum.Shape().Size())
}

// ArgMax is graph.ArgMax with int32 indices, in any number of functions of one graph. The first of
// equals wins.
func ArgMax(x *graph.Node, axis int) (index *graph.Node) {
	withOwnCaches(x.Graph(), func() { index = graph.ArgMax(x, axis, dtypes.Int32) })
	return index
}

func reduce(op func(x *graph.Node, axes ...int) *graph.Node, x *graph.Node, axes []int) (reduced *graph.Node) {
	withOwnCaches(x.Graph(), func() { reduced = op(x, axes...) })
	return reduced
}
