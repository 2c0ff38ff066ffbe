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
//	codes  float8 e4m3fn, shape of x, rounded to nearest even; scale as stored in format, axis of size 1; value = scale·code
//
// Elements that are not valid or NaN are 0, infinities ±448 scales.
func quantizeFloat8(x *Node, axis int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	units, scale := perHeadUnits(x, axis, valid, format, largestFloat8)
	return ConvertDType(roundToFloat8(units), dtypes.F8E4M3FN), scale
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

// dequantizePerHead gives values back from [quantizeFloat8] and [quantizeInt8], in float32.
func dequantizePerHead(codes, scale *Node, format ScaleFormat) *Node {
	return Mul(format.decodeScale(scale), ConvertDType(codes, dtypes.Float32))
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

// roundToFloat8 rounds float32 of at most 448 to numbers of float8 e4m3, half to even, as float32. XLA's own conversion rounds twice
// on some devices (to float16 first), which is wrong where the first rounding ends at a tie.
func roundToFloat8(x *Node) *Node {
	const drop = 23 - 3
	bits := Bitcast(x, dtypes.Uint32)
	odd := gx.AndScalar(gx.ShiftRight(bits, drop), 1)
	return narrow{mantissa: 3, minExponent: -6, largest: largestFloat8}.join(Add(gx.AddScalar(bits, 1<<(drop-1)-1), odd), Round, x)
}
