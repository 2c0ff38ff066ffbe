package gx

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// Scalar returns a scalar constant of the given dtype, made in the function being built. The value
// is converted to dtype as Go converts numbers; for float16 and bfloat16 it goes through float32.
func Scalar[N gotype.NumericNotComplex](g *graph.Graph, dtype dtypes.DType, value N) *graph.Node {
	return graph.ConstAsDType(g, dtype, value)
}

// NegInf returns a scalar constant of minus infinity. The dtype must be a float.
func NegInf(g *graph.Graph, dtype dtypes.DType) *graph.Node { return Scalar(g, dtype, math.Inf(-1)) }

// Inf returns a scalar constant of plus infinity. The dtype must be a float.
func Inf(g *graph.Graph, dtype dtypes.DType) *graph.Node { return Scalar(g, dtype, math.Inf(1)) }

// Fill returns a node of the given shape with every element set to value.
func Fill[N gotype.NumericNotComplex](g *graph.Graph, shape shapes.Shape, value N) *graph.Node {
	return graph.BroadcastToShape(Scalar(g, shape.DType, value), shape)
}

// Zeros returns a node of the given shape filled with zeros (false for booleans).
func Zeros(g *graph.Graph, shape shapes.Shape) *graph.Node { return Fill(g, shape, 0) }

// Ones returns a node of the given shape filled with ones (true for booleans).
func Ones(g *graph.Graph, shape shapes.Shape) *graph.Node { return Fill(g, shape, 1) }

// ZerosLike returns zeros with the shape and dtype of x.
func ZerosLike(x *graph.Node) *graph.Node { return Zeros(x.Graph(), x.Shape()) }

// OnesLike returns ones with the shape and dtype of x.
func OnesLike(x *graph.Node) *graph.Node { return Ones(x.Graph(), x.Shape()) }
