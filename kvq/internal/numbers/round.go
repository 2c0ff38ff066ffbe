package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Rounding to a narrower float is done on the bits of the float32, because XLA may keep more
// precision than a conversion to a narrow dtype and back asks for (its flag
// xla_allow_excess_precision is on): a scale that was stored in float16 and one that was used for
// the codes could then differ.

// narrow describes a float format with fewer bits than float32.
type narrow struct {
	mantissa    int     // bits of the mantissa, the leading 1 not counted
	minExponent int     // exponent of the smallest normal number
	largest     float64 // largest finite number
	// where ranges that are too wide are cut: below half of largest, in few bits
	limit float64
}

// narrowFormat describes dtype; ok is false for float32 and wider, which need no rounding.
func narrowFormat(dtype dtypes.DType) (f narrow, ok bool) {
	switch dtype {
	case dtypes.Float16:
		return narrow{10, -14, 65504, 0x1.fp14}, true
	case dtypes.BFloat16:
		return narrow{7, -126, 0x1.fep127, 0x1.fp126}, true
	case dtypes.Float32, dtypes.Float64:
		return narrow{23, -126, math.MaxFloat32, 0x1.fp126}, false
	}
	exceptions.Panicf("kvq: keys and values of dtype %s, want float32, float16 or bfloat16", dtype)
	return narrow{}, false
}

// roundTo rounds float32 x to the nearest number of dtype, ties to even, and returns it as float32.
// Above the largest finite number it gives infinity, as hardware does.
func roundTo(x *Node, dtype dtypes.DType) *Node {
	f, ok := narrowFormat(dtype)
	if !ok {
		return x
	}
	drop := 23 - f.mantissa
	bits := Bitcast(x, dtypes.Uint32)
	odd := gx.AndScalar(gx.ShiftRight(bits, drop), 1)
	rounded := f.join(Add(gx.AddScalar(bits, 1<<(drop-1)-1), odd), Round, x)
	return Where(gx.GreaterThanScalar(Abs(rounded), f.largest), Mul(rounded, gx.Inf(x.Graph(), dtypes.Float32)), rounded)
}

// roundUp rounds float32 x to the next number of f that is not below it, saturating at the largest
// finite one, as float32.
func (f narrow) roundUp(x *Node) *Node { return f.roundToward(x, Ceil, true) }

// roundDown rounds float32 x to the next number of f that is not above it, saturating at the lowest
// finite one, as float32.
func (f narrow) roundDown(x *Node) *Node { return f.roundToward(x, Floor, false) }

// roundNearest rounds float32 x to the nearest number of f, ties away from zero, saturating at the
// largest finite one, as float32.
func (f narrow) roundNearest(x *Node) *Node {
	x = gx.ClampScalar(x, -f.largest, f.largest)
	bits := gx.AddScalar(Bitcast(x, dtypes.Uint32), 1<<(22-f.mantissa))
	return gx.ClampScalar(f.join(bits, Round, x), -f.largest, f.largest)
}

func (f narrow) roundToward(x *Node, whole func(*Node) *Node, up bool) *Node {
	x = gx.ClampScalar(x, -f.largest, f.largest)
	bits := Bitcast(x, dtypes.Uint32)
	// Cutting bits goes toward zero; adding first what would be cut goes away from it, unless
	// nothing is there to cut.
	away := gx.AddScalar(bits, 1<<(23-f.mantissa)-1)
	positive := gx.GreaterThanScalar(x, 0)
	if up {
		bits = Where(positive, away, bits)
	} else {
		bits = Where(positive, bits, away)
	}
	return gx.ClampScalar(f.join(bits, whole, x), -f.largest, f.largest)
}

// join cuts the low bits of the float32 with the given bits, and below the normal numbers takes
// multiples of the smallest one, which whole rounds x to.
func (f narrow) join(bits *Node, whole func(*Node) *Node, x *Node) *Node {
	normal := Bitcast(gx.AndScalar(bits, 1<<32-1<<(23-f.mantissa)), dtypes.Float32)
	if f.minExponent == -126 {
		return normal // as float32: the same bits hold for numbers below the normal ones
	}
	unit := math.Ldexp(1, f.minExponent-f.mantissa)
	small := gx.MulScalar(whole(gx.MulScalar(x, 1/unit)), unit)
	return Where(gx.LessThanScalar(Abs(x), math.Ldexp(1, f.minExponent)), small, normal)
}

// NarrowTo converts x to dtype. What is finite and too large for it becomes its largest number, not
// infinite: an infinite key or value, and then the difference of two, would make answers NaN.
func NarrowTo(x *Node, dtype dtypes.DType) *Node {
	if x.DType() == dtype {
		return x
	}
	if f, narrower := narrowFormat(dtype); narrower && x.DType() == dtypes.Float32 {
		clamped := gx.ClampScalar(x, -f.largest, f.largest)
		x = Where(IsFinite(x), clamped, x)
	}
	return ConvertDType(x, dtype)
}
