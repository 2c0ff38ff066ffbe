package oracle

import "math"

// Rounder rounds a float32 to the numbers of a dtype. Exact is float32 itself.
type Rounder func(float32) float32

// Exact rounds to float32, which is no rounding.
func Exact(x float32) float32 { return x }

// BFloat16 rounds to bfloat16: float32 with 8 bits of precision. Ties go to even.
func BFloat16(x float32) float32 { return roundPrecision(x, 8, -133, 0x1.fep127) }

// Float16 rounds to float16: 11 bits of precision, multiples of 2^-24 near 0, infinite from 65520
// on. Ties go to even.
func Float16(x float32) float32 { return roundPrecision(x, 11, -24, 65504) }

// roundPrecision rounds to the nearest multiple of 2^(exponent - precision), at least 2^smallest.
func roundPrecision(x float32, precision, smallest int, largest float64) float32 {
	v := float64(x)
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return x
	}
	_, exponent := math.Frexp(v) // v = f·2^exponent, 0.5 <= |f| < 1
	unit := math.Ldexp(1, max(exponent-precision, smallest))
	v = math.RoundToEven(v/unit) * unit
	if math.Abs(v) > largest {
		v = math.Inf(int(math.Copysign(1, v)))
	}
	return float32(v)
}

// MinMax quantizes one group as quanto does: scale and zero point from minimum and maximum, every
// operation rounded to the dtype of round. Elements that are NaN or infinite have no vote; NaN gets
// code 0, infinities the code of their end. A group without a vote gets scale and zero 0. A range
// whose last value overflows, or all but does, is limited at both ends to ±0x1.fp126, in float16 to
// ±0x1.fp14: of a group that lies wholly beyond the limit every value becomes the limit.
//
// Each product and sum stands in a conversion of its own, so that no compiler fuses them.
func MinMax(x []float32, bits int, round Rounder) (codes []uint8, scale, zero float32) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range x {
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			low, high = min(low, f), max(high, f)
		}
	}
	if low > high {
		low, high = 0, 0
	}
	top := float32(int(1)<<bits - 1)
	measure := func() {
		span := round(float32(float32(high) - float32(low)))
		scale = round(float32(span / top))
	}
	measure()
	if last := round(float32(scale * top)); math.Abs(float64(round(float32(last+float32(low))))) > 0x1.fffffp127 {
		limit := limitOf(round)
		low, high = min(max(low, -limit), limit), min(max(high, -limit), limit)
		measure()
	}
	zero = float32(low)
	codes = make([]uint8, len(x))
	for i, v := range x {
		steps := round(float32(round(float32(v-zero)) / scale))
		if scale > 0 && !math.IsNaN(float64(steps)) {
			codes[i] = uint8(min(max(math.RoundToEven(float64(steps)), 0), float64(top)))
		}
	}
	return codes, scale, zero
}

// DequantizeMinMax gives the values of a group back: product and sum rounded one after the other.
func DequantizeMinMax(codes []uint8, scale, zero float32, round Rounder) []float32 {
	out := make([]float32, len(codes))
	for i, c := range codes {
		product := round(float32(scale * float32(c)))
		out[i] = round(float32(product + zero))
	}
	return out
}

// limitOf is where ranges that overflow are cut: a little below half of the largest finite number.
func limitOf(round Rounder) float64 {
	if math.IsInf(float64(round(65536)), 0) {
		return 0x1.fp14
	}
	return 0x1.fp126
}

// Symmetric quantizes one group in float64 without a zero point: scale = max|x| / (2^(bits-1) - 1),
// code = round(x / scale) + 2^(bits-1).
func Symmetric(x []float64, bits int) (codes []uint8, scale float64) {
	middle := float64(int(1) << (bits - 1))
	for _, v := range x {
		scale = max(scale, math.Abs(v)/(middle-1))
	}
	codes = make([]uint8, len(x))
	for i, v := range x {
		codes[i] = uint8(middle)
		if scale > 0 {
			codes[i] = uint8(math.RoundToEven(v/scale) + middle)
		}
	}
	return codes, scale
}
