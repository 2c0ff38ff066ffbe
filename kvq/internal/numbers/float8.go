package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Float8 stores e4m3 numbers.
var Float8 = &Quantizer{
	Name:    "float8",
	Element: dtypes.Uint8, // the bits of the numbers: go-xla v0.4.13 has no arrays of them
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		codes, scales = quantizeFloat8(x, axis, valid, s.Scales)
		return codes, scales, nil
	},
	number: float8Numbers,
}

// largestFloat8 is the largest number of float8 e4m3 (4 bits of exponent, 3 of mantissa, no
// infinity): 1.75·2^8.
const largestFloat8 = 448

// quantizeFloat8 stores x as float8 e4m3 numbers with one scale a group, max|x| / 448. Three bits
// of mantissa: an element is right to 1/16 of itself, small ones (below 2^-15 of the largest) to
// 2^-19 of the largest.
//
//	codes  uint8, shape of x: | sign | exponent: 4 bits, bias 7 | mantissa: 3 bits |, rounded half to even
//	scale  as stored in format, axis of size 1; value = scale·code
//
// The codes are the bits of e4m3fn in bytes, because go-xla v0.4.13 has no float8 arrays. Elements
// that are not valid or NaN are 0, infinities ±448 scales.
func quantizeFloat8(x *Node, axis int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	units, scale := perHeadUnits(x, axis, valid, format, largestFloat8)
	return float8Codes(units), scale
}

// float8Codes are the bits of the e4m3 numbers nearest to float32 of at most 448.
func float8Codes(x *Node) *Node {
	// A 256th of an e4m3 number is a float16 with the same mantissa and the exponent in the low
	// four of its five bits.
	bits := Bitcast(ConvertDType(gx.MulScalar(roundToFloat8(x), 1.0/256), dtypes.Float16), dtypes.Uint16)
	bits = BitwiseOr(gx.AndScalar(gx.ShiftRight(bits, 8), 0x80), gx.AndScalar(gx.ShiftRight(bits, 7), 0x7f))
	return ConvertDType(bits, dtypes.Uint8)
}

// float8Numbers gives the numbers that codes of [float8Codes] stand for, without the scale, as
// float32.
func float8Numbers(codes *Node) *Node {
	bits := ConvertDType(codes, dtypes.Uint16)
	bits = BitwiseOr(gx.ShiftLeft(gx.AndScalar(bits, 0x80), 8), gx.ShiftLeft(gx.AndScalar(bits, 0x7f), 7))
	return gx.MulScalar(ConvertDType(Bitcast(bits, dtypes.Float16), dtypes.Float32), 256)
}

// roundToFloat8 rounds float32 of at most 448 to numbers of float8 e4m3, half to even, as float32.
func roundToFloat8(x *Node) *Node {
	const drop = 23 - 3
	bits := Bitcast(x, dtypes.Uint32)
	odd := gx.AndScalar(gx.ShiftRight(bits, drop), 1)
	return narrow{mantissa: 3, minExponent: -6}.join(Add(gx.AddScalar(bits, 1<<(drop-1)-1), odd), Round, x)
}
