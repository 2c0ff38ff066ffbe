package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/pkg/errors"
)

// ScaleFormat says how scales and zero points are stored. Codes are always made with the scale and
// zero point as they are stored, not as they were before rounding, so that rounding them costs
// range but no accuracy: scales are rounded up and float zero points down, and every finite value
// stays within half a step of its code, plus the rounding of the arithmetic.
type ScaleFormat string

const (
	// ScaleFloat32, ScaleFloat16 and ScaleBFloat16 store both as such floats. Values beyond the
	// largest finite number of the format (65504 for float16) saturate: nothing becomes infinite.
	ScaleFloat32  ScaleFormat = "float32"
	ScaleFloat16  ScaleFormat = "float16"
	ScaleBFloat16 ScaleFormat = "bfloat16"

	// Scale8 stores both in a byte.
	//
	//	scale  | exponent: 4 bits, bias 9 | mantissa: 4 bits |    no sign; from 2^-12 to 124, normal from 2^-8 on
	//	zero   a signed byte r (stored as r + 128) in units of u steps: zero = r·u·scale
	//
	// The mantissa of 4 bits costs up to 1/16 of the range, on average 2.5 %. Larger scales
	// saturate. The unit u is 2^-(6-bits), or 1 for 6 bits and more: the zero point is right to
	// half a unit and reaches two ranges below and above 0 (half a range for 8 bits). A group that
	// lies farther off gets a larger scale.
	Scale8 ScaleFormat = "8bit"
)

// Check refuses what is no format.
func (f ScaleFormat) Check() error {
	switch f {
	case "", ScaleFloat32, ScaleFloat16, ScaleBFloat16, Scale8:
		return nil
	}
	return errors.Errorf("want %q, %q, %q, %q or nothing, got %q", ScaleFloat32, ScaleFloat16, ScaleBFloat16, Scale8, string(f))
}

// DType is the dtype in which scales and zero points are stored in a cache of dtype cache.
func (f ScaleFormat) DType(cache dtypes.DType) dtypes.DType {
	switch f {
	case "":
		return cache
	case ScaleFloat32:
		return dtypes.Float32
	case ScaleFloat16:
		return dtypes.Float16
	case ScaleBFloat16:
		return dtypes.BFloat16
	case Scale8:
		return dtypes.Uint8
	}
	exceptions.Panicf("kvq: scales: %v", f.Check())
	return dtypes.InvalidDType
}

// byteScale is the float format of a scale in a byte.
var byteScale = narrow{mantissa: ByteScaleMantissa, minExponent: -8, largest: 124}

// What decoding a scale or zero point of a byte takes, for those who do it outside of graphs.
const (
	ByteScaleMantissa = 4 // bits of the mantissa
	// from the exponent's bias of 9 to float32's, above 4 bits of mantissa
	ByteScaleOffset = (127 - 9) << ByteScaleMantissa
	ByteScaleUnit   = 0x1p-12 // smallest scale above 0
	ByteZeroOffset  = 128
)

// ZeroUnit is the unit u of a zero point in a byte, in steps.
func ZeroUnit(bits int) float64 { return math.Ldexp(1, min(0, bits-6)) }

// Storage resolves the empty format, which is the cache's dtype.
func (f ScaleFormat) Storage(cache dtypes.DType) ScaleFormat {
	if f != "" {
		return f
	}
	switch cache {
	case dtypes.Float16:
		return ScaleFloat16
	case dtypes.BFloat16:
		return ScaleBFloat16
	}
	return ScaleFloat32
}

// EncodeScale stores the scale of codes that reach from 0 to steps, so that steps·scale covers
// span, float32 and not negative. It returns the scale as stored.
func (f ScaleFormat) EncodeScale(span *Node, steps float64) *Node {
	scale := divideByConstant(span, steps)
	if f == Scale8 {
		return toByteScale(scale)
	}
	dtype := f.DType(dtypes.InvalidDType)
	format, narrower := narrowFormat(dtype)
	if narrower {
		scale = format.roundUp(scale)
	}
	return ConvertDType(gx.MinScalar(scale, format.largest), dtype)
}

// encodeRange stores scale and zero point of a group whose values lie in [low, high], for codes of
// the given bits. low and high are finite float32 with low <= high. It returns scale and zero point
// as stored: both of dtype f.dtype.
func (f ScaleFormat) encodeRange(low, high *Node, bits int) (scale, zero *Node) {
	steps := float64(int(1)<<bits - 1)
	if f == Scale8 {
		unit := ZeroUnit(bits)
		reach := divideByConstant(Abs(low), unit*(ByteZeroOffset-1))
		scale = toByteScale(Max(divideByConstant(Sub(high, low), steps), reach))
		step := gx.MulScalar(fromByteScale(scale), unit)
		ratio := Round(Div(low, positiveOr1(step)))
		ratio = gx.ClampScalar(gx.AddScalar(ratio, ByteZeroOffset), 0, 255)
		return scale, ConvertDType(ratio, dtypes.Uint8)
	}
	dtype := f.DType(dtypes.InvalidDType)
	zero = low
	if format, narrower := narrowFormat(dtype); narrower {
		zero = format.roundDown(low)
	}
	return f.EncodeScale(gx.MaxScalar(Sub(high, zero), 0), steps), ConvertDType(zero, dtype)
}

// encodeNearest stores a float32 scale and zero point as near as the format has them, for codes
// that were made with others: then rounding outward has no point.
func (f ScaleFormat) encodeNearest(scale, low *Node, bits int) (stored, zero *Node) {
	if f == Scale8 {
		unit := ZeroUnit(bits)
		reach := divideByConstant(Abs(low), unit*(ByteZeroOffset-1))
		stored = byteOfScale(byteScale.roundNearest(Max(scale, reach)))
		ratio := Round(Div(low, positiveOr1(gx.MulScalar(fromByteScale(stored), unit))))
		return stored, ConvertDType(gx.ClampScalar(gx.AddScalar(ratio, ByteZeroOffset), 0, 255), dtypes.Uint8)
	}
	dtype := f.DType(dtypes.InvalidDType)
	nearest := func(x *Node) *Node {
		if format, narrower := narrowFormat(dtype); narrower {
			x = format.roundNearest(x)
		}
		return ConvertDType(x, dtype)
	}
	return nearest(scale), nearest(low)
}

// DecodeScale gives back a stored scale as float32.
func (f ScaleFormat) DecodeScale(scale *Node) *Node {
	if f == Scale8 {
		return fromByteScale(scale)
	}
	return ConvertDType(scale, dtypes.Float32)
}

// DecodeZero gives back a stored zero point as float32; scale is what DecodeScale returned.
func (f ScaleFormat) DecodeZero(zero, scale *Node, bits int) *Node {
	if f != Scale8 {
		return ConvertDType(zero, dtypes.Float32)
	}
	ratio := gx.SubScalar(ConvertDType(zero, dtypes.Float32), ByteZeroOffset)
	return Mul(ratio, gx.MulScalar(scale, ZeroUnit(bits)))
}

// toByteScale rounds a float32 scale up to a byte.
func toByteScale(scale *Node) *Node { return byteOfScale(byteScale.roundUp(scale)) }

// byteOfScale gives the byte of a scale that is one of byteScale's numbers.
func byteOfScale(scale *Node) *Node {
	normal := gx.SubScalar(gx.ShiftRight(Bitcast(scale, dtypes.Uint32), 23-byteScale.mantissa), ByteScaleOffset)
	small := ConvertDType(gx.MulScalar(scale, 1/ByteScaleUnit), dtypes.Uint32)
	return ConvertDType(Where(gx.LessThanScalar(scale, 16*ByteScaleUnit), small, normal), dtypes.Uint8)
}

// fromByteScale is the inverse of toByteScale for scales that are a byte's.
func fromByteScale(code *Node) *Node {
	code = ConvertDType(code, dtypes.Uint32)
	normal := Bitcast(gx.ShiftLeft(gx.AddScalar(code, ByteScaleOffset), 23-byteScale.mantissa), dtypes.Float32)
	small := gx.MulScalar(ConvertDType(code, dtypes.Float32), ByteScaleUnit)
	return Where(gx.LessThanScalar(code, 16), small, normal)
}

// divideByConstant is float32 x / c, correctly rounded. XLA makes a division by a constant a
// multiplication by its reciprocal, which is wrong in the last place for more than half of all x.
// In float64 it makes the same change, but there the error is too small to matter: no quotient of a
// 24-bit x by a number of at most 8 bits lies so near to the middle between two float32.
func divideByConstant(x *Node, c float64) *Node {
	if c == 1 {
		return x
	}
	return ConvertDType(gx.MulScalar(ConvertDType(x, dtypes.Float64), 1/c), dtypes.Float32)
}

// inSteps divides float32 x by the scale of its group. A scale of 0 counts as 1.
//
// XLA makes x / broadcast(scale) a product with 1/scale. Above 2^126 that is a denormal number,
// which XLA's CPU code takes for 0: every quotient would be 0, and that of an infinity NaN. Groups
// of such a scale, which only codes of 2 bits can have, are divided at a quarter of their size.
func inSteps(x, scale *Node, bits int) *Node {
	if bits == 2 {
		size := Where(gx.GreaterThanScalar(scale, largestDivisor), gx.Fill(x.Graph(), scale.Shape(), 0.25), gx.OnesLike(scale))
		x, scale = Mul(x, size), Mul(scale, size)
	}
	return Div(x, positiveOr1(scale))
}

// largestDivisor is the largest float32 whose reciprocal is a normal number.
const largestDivisor = 0x1p126

// positiveOr1 replaces a scale of 0 by 1, so that it can divide.
func positiveOr1(scale *Node) *Node {
	return Where(gx.GreaterThanScalar(scale, 0), scale, gx.OnesLike(scale))
}
