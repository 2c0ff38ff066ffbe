package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// largestFloat8 is the largest number of float8 e4m3 (4 bits of exponent, 3 of mantissa, no infinity): 1.75·2^8.
const largestFloat8 = 448

// quantizeFloat8 stores x as float8 e4m3 numbers with one scale a group, max|x| / 448. Three bits of mantissa: an element is right to
// 1/16 of itself, small ones (below 2^-15 of the largest) to 2^-19 of the largest.
//
//	codes  uint8, shape of x: | sign | exponent: 4 bits, bias 7 | mantissa: 3 bits |, rounded half to even
//	scale  as stored in format, axis of size 1; value = scale·code
//
// The codes are the bits of e4m3fn in bytes, because go-xla v0.4.13 has no float8 arrays. Elements that are not valid or NaN are 0,
// infinities ±448 scales.
func quantizeFloat8(x *Node, axis int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	units, scale := perHeadUnits(x, axis, valid, format, largestFloat8)
	// A 256th of an e4m3 number is a float16 with the same mantissa and the exponent in the low four of its five bits.
	bits := Bitcast(ConvertDType(gx.MulScalar(roundToFloat8(units), 1.0/256), dtypes.Float16), dtypes.Uint16)
	bits = BitwiseOr(gx.AndScalar(gx.ShiftRight(bits, 8), 0x80), gx.AndScalar(gx.ShiftRight(bits, 7), 0x7f))
	return ConvertDType(bits, dtypes.Uint8), scale
}

// float8Numbers gives the numbers that codes of [quantizeFloat8] stand for, without the scale, as float32.
func float8Numbers(codes *Node) *Node {
	bits := ConvertDType(codes, dtypes.Uint16)
	bits = BitwiseOr(gx.ShiftLeft(gx.AndScalar(bits, 0x80), 8), gx.ShiftLeft(gx.AndScalar(bits, 0x7f), 7))
	return gx.MulScalar(ConvertDType(Bitcast(bits, dtypes.Float16), dtypes.Float32), 256)
}

// quantizeInt8 stores x as whole numbers -127..127 with one scale a group, max|x| / 127.
//
//	codes  int8, shape of x, rounded half to even; scale as stored in format, axis of size 1; value = scale·code
//
// Elements that are not valid or NaN are 0, infinities ±127 scales.
func quantizeInt8(x *Node, axis int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	units, scale := perHeadUnits(x, axis, valid, format, 127)
	return ConvertDType(Round(units), dtypes.Int8), scale
}

// perHeadUnits returns x in units of its group's scale, float32 in [-largest, largest], and the scale as stored.
func perHeadUnits(x *Node, axis int, valid *Node, format ScaleFormat, largest float64) (units, scale *Node) {
	format = format.storage(x.DType())
	x, usable := voters(x, valid)
	scale = format.encodeScale(groupPeak(x, axis, usable), largest)
	step := format.decodeScale(scale)
	units = gx.ClampScalar(Div(x, positiveOr1(step)), -largest, largest)
	return Where(keep(x, step, valid), units, gx.ZerosLike(units)), scale
}

// roundToFloat8 rounds float32 of at most 448 to numbers of float8 e4m3, half to even, as float32.
func roundToFloat8(x *Node) *Node {
	const drop = 23 - 3
	bits := Bitcast(x, dtypes.Uint32)
	odd := gx.AndScalar(gx.ShiftRight(bits, drop), 1)
	return narrow{mantissa: 3, minExponent: -6}.join(Add(gx.AddScalar(bits, 1<<(drop-1)-1), odd), Round, x)
}
