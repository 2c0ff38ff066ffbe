// Package gx holds graph helpers that may be used inside the closures of graph.While and graph.If.
//
// It is the one place for a workaround of two faults.
//
// GoMLX v0.28.16 keeps scalar constants in a cache that belongs to the whole graph (Graph.getScalarConst in
// core/graph/graph.go), while a constant belongs to the function that was being built when it was made. A scalar
// first made in one closure is handed to a sibling closure too, and the sibling fails with "operands are not part of the
// function" or the like. graph.Scalar, AddScalar, MulScalar, ZerosLike, OnesLike, ReduceMean, MaskedReduceSum, Softmax,
// ClipScalar and the Bitwise...Scalar family all go through that cache. Here every constant is made anew with
// graph.Const, in the function being built (XLA merges equal constants, so this costs nothing).
//
// go-xla v0.4.13 likewise caches the little function that adds, or takes the maximum of, two values, per dtype and for
// the whole graph (Function.getReductionFn in compute/xla/ops_reduce.go). So a graph may use graph.ReduceSum of float32
// in one of its functions only; a second function fails with "reductionFn is not a StableHLO closure of". ArgMax,
// ReduceWindow and the scatters share the fault. The reductions here hide the cache while they are built.
//
// Code that may be called while any closure is built, a caller's own too, uses this package for all of these. NewClosure and
// Loop give a closure caches of its own, so that inside them the graph package's functions work too.
// TestScalarCacheFault and TestReductionCacheFault show the faults; when they start to fail, this package can go.
//
// The other half of the rule stays with the caller: inside a closure, both operands of an elementwise operation
// must belong to that closure. Values of the enclosing graph come in as loop state.
//
// Functions here panic as those of the graph package do.
package gx

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// Scalar returns a scalar constant of the given dtype, made in the function being built.
// The value is converted to dtype as Go converts numbers; for float16 and bfloat16 it goes through float32.
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

// AddScalar returns x + value in x's dtype.
func AddScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Add(x, like(x, value))
}

// SubScalar returns x - value in x's dtype.
func SubScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Sub(x, like(x, value))
}

// MulScalar returns x * value in x's dtype.
func MulScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Mul(x, like(x, value))
}

// DivScalar returns x / value in x's dtype, as a division: graph.DivScalar multiplies by the reciprocal, which rounds differently.
func DivScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Div(x, like(x, value))
}

// MaxScalar returns the larger of x and value, element by element; NaN stays NaN.
func MaxScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Max(x, like(x, value))
}

// MinScalar returns the smaller of x and value, element by element; NaN stays NaN.
func MinScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Min(x, like(x, value))
}

// ClampScalar returns x limited to [low, high]; NaN stays NaN.
// It is a maximum and a minimum, because the pure-Go backend has no clamp.
func ClampScalar[N gotype.NumericNotComplex](x *graph.Node, low, high N) *graph.Node {
	return MinScalar(MaxScalar(x, low), high)
}

// PowScalar returns x to the power of value, in x's dtype.
func PowScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Pow(x, like(x, value))
}

// EqualScalar returns a boolean: x == value.
func EqualScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.Equal(x, like(x, value))
}

// LessThanScalar returns a boolean: x < value.
func LessThanScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.LessThan(x, like(x, value))
}

// LessOrEqualScalar returns a boolean: x <= value.
func LessOrEqualScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.LessOrEqual(x, like(x, value))
}

// GreaterThanScalar returns a boolean: x > value.
func GreaterThanScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.GreaterThan(x, like(x, value))
}

// GreaterOrEqualScalar returns a boolean: x >= value.
func GreaterOrEqualScalar[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return graph.GreaterOrEqual(x, like(x, value))
}

// AndScalar returns the bitwise and of an integer x with value.
func AndScalar(x *graph.Node, value int) *graph.Node { return graph.BitwiseAnd(x, like(x, value)) }

// ShiftLeft returns an integer x shifted left by bits.
func ShiftLeft(x *graph.Node, bits int) *graph.Node { return graph.BitwiseShiftLeft(x, like(x, bits)) }

// ShiftRight returns an integer x shifted right by bits, zeros coming in from the left.
func ShiftRight(x *graph.Node, bits int) *graph.Node {
	return graph.BitwiseShiftRightLogical(x, like(x, bits))
}

// like makes a scalar constant of x's dtype.
func like[N gotype.NumericNotComplex](x *graph.Node, value N) *graph.Node {
	return Scalar(x.Graph(), x.DType(), value)
}

// BroadcastToDims is graph.BroadcastToDims in fewer operations: nothing where the shape is the one wanted, and one broadcast of what has no axes of size 1
// where go-xla's becomes two and a reshape. XLA takes them away again, but that is much of its time to compile.
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
			return graph.BroadcastToDims(x, dims...) // which says what is wrong
		}
	}
	return graph.ExpandAndBroadcast(graph.Reshape(x, kept...), dims, grown)
}
