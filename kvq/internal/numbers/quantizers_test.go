package numbers_test

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// quantizeMinMax is quanto's: scale and zero point in the dtype of x.
func quantizeMinMax(x *Node, axis, bits int, valid *Node) (codes, scale, zero *Node) {
	return numbers.Spec{Quantizer: numbers.MinMax, Bits: bits}.Encode(x, axis, valid)
}

// quantizeStored codes with scales and zero points in a format.
func quantizeStored(x *Node, axis, bits int, valid *Node, format numbers.ScaleFormat, q *numbers.Quantizer) (codes, scale, zero *Node) {
	return numbers.Spec{Quantizer: q, Bits: bits, Scales: format}.Encode(x, axis, valid)
}

func quantizeUnbiased(x *Node, axis, bits int, valid *Node, format numbers.ScaleFormat, keys bool) (codes, scale, zero *Node) {
	return numbers.Spec{Quantizer: numbers.Unbiased, Bits: bits, Scales: format, Keys: keys}.Encode(x, axis, valid)
}

func quantizeHQQ(x *Node, axis, bits int, valid *Node, format numbers.ScaleFormat) (codes, scale, zero *Node) {
	return numbers.Spec{Quantizer: numbers.HQQ, Bits: bits, Scales: format}.Encode(x, axis, valid)
}

func quantizeSymmetric(x *Node, axis, bits int, valid *Node, format numbers.ScaleFormat) (codes, scale *Node) {
	codes, scale, _ = numbers.Spec{Quantizer: numbers.Symmetric, Bits: bits, Scales: format}.Encode(x, axis, valid)
	return codes, scale
}

func quantizeFloat8(x *Node, axis int, valid *Node, format numbers.ScaleFormat) (codes, scale *Node) {
	codes, scale, _ = numbers.Spec{Quantizer: numbers.Float8, Scales: format}.Encode(x, axis, valid)
	return codes, scale
}

func quantizeInt8(x *Node, axis int, valid *Node, format numbers.ScaleFormat) (codes, scale *Node) {
	codes, scale, _ = numbers.Spec{Quantizer: numbers.Int8, Scales: format}.Encode(x, axis, valid)
	return codes, scale
}

// dequantize gives quanto's values back from [quantizeMinMax], bit for bit: scale·code + zero, with
// product and sum each rounded to the dtype of the scale.
func dequantize(codes, scale, zero *Node) *Node {
	dtype := scale.DType()
	product := Mul(ConvertDType(scale, dtypes.Float32), ConvertDType(codes, dtypes.Float32))
	// The product is never negative, so Abs changes nothing. It is there because XLA's CPU compiler
	// would make product and sum one fused operation with a single rounding, which changes the last
	// bit of nearly half of all values.
	product = numbers.RoundTo(Abs(product), dtype)
	return ConvertDType(numbers.RoundTo(Add(product, ConvertDType(zero, dtypes.Float32)), dtype), dtype)
}

// decoded gives values back, in float32. XLA may fuse product and sum.
func decoded(s numbers.Spec, codes, scales, zeros *Node) *Node {
	scale, zero := s.ScaleAndZero(scales, zeros)
	values := Mul(scale, s.Numbers(codes))
	if zero != nil {
		values = Add(values, zero)
	}
	return values
}

func dequantizeStored(codes, scale, zero *Node, bits int, format numbers.ScaleFormat) *Node {
	return decoded(numbers.Spec{Quantizer: numbers.MinMax, Bits: bits, Scales: format}, codes, scale, zero)
}

func dequantizeSymmetric(codes, scale *Node, bits int, format numbers.ScaleFormat) *Node {
	return Mul(format.DecodeScale(scale), gx.SubScalar(ConvertDType(codes, dtypes.Float32), int(1)<<(bits-1)))
}

func dequantizeFloat8(codes, scale *Node, format numbers.ScaleFormat) *Node {
	return decoded(numbers.Spec{Quantizer: numbers.Float8, Scales: format}, codes, scale, nil)
}

func dequantizeInt8(codes, scale *Node, format numbers.ScaleFormat) *Node {
	return decoded(numbers.Spec{Quantizer: numbers.Int8, Scales: format}, codes, scale, nil)
}
