package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// The ways back from codes to values, one for each quantizer. A cache never makes these arrays;
// attention reads codes, scales and zero points apart.

// dequantize gives quanto's values back from [quantizeMinMax], bit for bit: scale·code + zero, with
// product and sum each rounded to the dtype of scale, which is the dtype of the result.
func dequantize(codes, scale, zero *Node) *Node {
	dtype := scale.DType()
	product := Mul(ConvertDType(scale, dtypes.Float32), ConvertDType(codes, dtypes.Float32))
	// The product is never negative, so Abs changes nothing. It is there because XLA's CPU compiler
	// would make product and sum one fused operation with a single rounding, which changes the last
	// bit of nearly half of all values.
	product = roundTo(Abs(product), dtype)
	return ConvertDType(roundTo(Add(product, ConvertDType(zero, dtypes.Float32)), dtype), dtype)
}

// dequantizeStored gives values back from [quantizeStored], in float32: scale·code + zero. XLA may
// fuse product and sum.
func dequantizeStored(codes, scale, zero *Node, bits int, format ScaleFormat) *Node {
	step := format.DecodeScale(scale)
	return Add(Mul(step, ConvertDType(codes, dtypes.Float32)), format.DecodeZero(zero, step, bits))
}

// dequantizeSymmetric gives values back from [quantizeSymmetric], in float32.
func dequantizeSymmetric(codes, scale *Node, bits int, format ScaleFormat) *Node {
	return Mul(format.DecodeScale(scale), gx.SubScalar(ConvertDType(codes, dtypes.Float32), int(1)<<(bits-1)))
}

// dequantizeFloat8 gives values back from [quantizeFloat8], in float32.
func dequantizeFloat8(codes, scale *Node, format ScaleFormat) *Node {
	return Mul(format.DecodeScale(scale), float8Numbers(codes))
}

// dequantizeInt8 gives values back from [quantizeInt8], in float32.
func dequantizeInt8(codes, scale *Node, format ScaleFormat) *Node {
	return Mul(format.DecodeScale(scale), ConvertDType(codes, dtypes.Float32))
}
