package gx

import (
	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/gomlx/core/graph"
)

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

// DivScalar returns x / value in x's dtype, as a division: graph.DivScalar multiplies by the
// reciprocal, which rounds differently.
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
