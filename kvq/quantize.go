package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// The quantizers work on values already split into groups: one axis of x runs over a group, and scale and zero point keep that axis
// with size 1. They know nothing of bytes (words.go) and little of how scales are stored (scale.go).
//
// What all of them do with values that are no ordinary numbers:
//
//   - An element that is not valid, or NaN or infinite, has no vote in the range of its group. NaN and elements that are not valid get
//     the lowest code, infinities the code of the nearest end: all decode to finite values.
//   - A group without a voter gets scale 0 and zero point 0.
//   - A constant group gets scale 0 and codes 0, and decodes to its constant exactly.
//   - A group whose range is too wide for the dtype (3e38 and -3e38 in float32, 60000 and -60000 in float16) is limited to a little less
//     than half of the largest finite number on both sides; values beyond saturate. quanto gives NaN for the whole group.
//   - Numbers below the normal ones of float32 (1.2e-38) may count as 0: XLA's CPU code flushes them.
//
// So finite input never gives NaN or infinity.

// quantizeMinMax is quanto's affine quantizer with the range of MaxOptimizer, bit for bit, whatever the dtype of x: float32, or float16
// and bfloat16 with every operation rounded to the dtype. Source: optimum-quanto 0.2.7, MaxOptimizer and quantize_affine.
//
//	scale = (max - min) / (2^bits - 1)      code = clamp(round_half_even((x - min) / scale), 0, 2^bits - 1)
//	zero  = min                             value = scale·code + zero
//
//	x      [..., G, ...], groups along axis
//	valid  nil, or booleans that broadcast to x
//	codes  uint8, shape of x; scale, zero: dtype and shape of x with axis of size 1
//
// It differs from quanto where a group's range overflows (see above) and in a quirk: quanto stores a tensor that is a single group
// along axis 0 without loss.
func quantizeMinMax(x *Node, axis, bits int, valid *Node) (codes, scale, zero *Node) {
	dtype := x.DType()
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtype)
	scale = rangeScale(low, high, bits, dtype)
	steps := roundTo(Div(roundTo(Sub(x, low), dtype), positiveOr1(scale)), dtype)
	return codesOf(steps, scale, bits, valid), ConvertDType(scale, dtype), ConvertDType(low, dtype)
}

// quantizeStored is the min-max quantizer for scales and zero points that are stored in a format of their own: the range is rounded to
// the format first, outward, and the codes are made with what is stored. fit chooses the range from minimum and maximum; nil
// takes them as they are.
//
// codes as in [quantizeMinMax]; scale and zero as stored, see [ScaleFormat.encodeRange].
func quantizeStored(x *Node, axis, bits int, valid *Node, format ScaleFormat, fit rangeFitter) (codes, scale, zero *Node) {
	format = format.storage(x.DType())
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtypes.Float32)
	f, _ := narrowFormat(dtypes.Float32)
	low, high = gx.ClampScalar(low, -f.limit, f.limit), gx.ClampScalar(high, -f.limit, f.limit) // a scale rounded up could overflow
	if fit != nil {
		low, high = fit(x, axis, bits, usable, low, high)
	}
	scale, zero = format.encodeRange(low, high, bits)
	step := format.decodeScale(scale)
	steps := Div(Sub(x, format.decodeZero(zero, step, bits)), positiveOr1(step))
	return codesOf(steps, step, bits, valid), scale, zero
}

// quantizeSymmetric has no zero point: the codes lie around the middle one, which stands for 0.
//
//	scale = max|x| / (2^(bits-1) - 1)       code = clamp(round_half_even(x / scale) + 2^(bits-1), 1, 2^bits - 1)
//	                                        value = scale·(code - 2^(bits-1))
//
// Code 0 is not used, so that the range is the same on both sides: 2 bits have the levels -1, 0 and 1. bits is at least 2.
// codes uint8, shape of x; scale as stored in format, axis of size 1.
func quantizeSymmetric(x *Node, axis, bits int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	if bits < 2 {
		exceptions.Panicf("kvq: symmetric codes of %d bits, want at least 2", bits)
	}
	format = format.storage(x.DType())
	x, usable := voters(x, valid)
	middle := int(1) << (bits - 1)
	scale = format.encodeScale(groupPeak(x, axis, usable), float64(middle-1))
	step := format.decodeScale(scale)
	steps := gx.ClampScalar(Round(Div(x, positiveOr1(step))), float64(1-middle), float64(middle-1))
	steps = gx.AddScalar(Where(keep(x, step, valid), steps, gx.ZerosLike(steps)), middle)
	return ConvertDType(steps, dtypes.Uint8), scale
}

// voters returns x as float32 and which of its elements have a vote: valid, where that is not nil, and finite.
func voters(x, valid *Node) (x32, usable *Node) {
	narrowFormat(x.DType()) // refuses other dtypes
	x32 = ConvertDType(x, dtypes.Float32)
	usable = IsFinite(x32)
	if valid != nil {
		usable = And(usable, valid)
	}
	return x32, usable
}

// groupRange returns the least and the largest usable element of each group of float32 x, limited so that all 2^bits values are finite
// numbers of dtype; 0 and 0 for a group without a usable element.
func groupRange(x *Node, axis, bits int, usable *Node, dtype dtypes.DType) (low, high *Node) {
	g := x.Graph()
	low = gx.ReduceMinAndKeep(Where(usable, x, gx.Inf(g, dtypes.Float32)), axis)
	high = gx.ReduceMaxAndKeep(Where(usable, x, gx.NegInf(g, dtypes.Float32)), axis)
	empty := GreaterThan(low, high)
	low, high = Where(empty, gx.ZerosLike(low), low), Where(empty, gx.ZerosLike(high), high)
	f, _ := narrowFormat(dtype)
	last := roundTo(gx.MulScalar(rangeScale(low, high, bits, dtype), int(1)<<bits-1), dtype)
	wide := Not(IsFinite(roundTo(Add(last, low), dtype)))
	low = Where(wide, gx.MaxScalar(low, -f.limit), low)
	high = Where(wide, gx.MinScalar(high, f.limit), high)
	return low, high
}

// rangeScale is the scale of codes that cover [low, high], rounded as quanto does in dtype.
func rangeScale(low, high *Node, bits int, dtype dtypes.DType) *Node {
	return roundTo(divideByConstant(roundTo(Sub(high, low), dtype), float64(int(1)<<bits-1)), dtype)
}

// groupPeak returns the largest magnitude of the usable elements of each group of float32 x, 0 for a group without one. It stays a little
// below the largest float32, so that a scale rounded up does not carry the largest code over it.
func groupPeak(x *Node, axis int, usable *Node) *Node {
	peak := gx.ReduceMaxAndKeep(Where(usable, Abs(x), gx.Scalar(x.Graph(), dtypes.Float32, 0)), axis)
	return gx.MinScalar(peak, 0x1.f8p127)
}

// codesOf rounds positions inside of a range, in steps, to codes. Elements that are not valid or NaN, and groups of scale 0, get code 0.
func codesOf(steps, scale *Node, bits int, valid *Node) *Node {
	codes := gx.ClampScalar(Round(steps), 0, float64(int(1)<<bits-1))
	return ConvertDType(Where(keep(steps, scale, valid), codes, gx.ZerosLike(codes)), dtypes.Uint8)
}

// keep says which elements have a code of their own: valid, not NaN, in a group whose scale is not 0.
func keep(x, scale, valid *Node) *Node {
	kept := And(Not(IsNaN(x)), gx.GreaterThanScalar(scale, 0))
	if valid != nil {
		kept = And(kept, valid)
	}
	return kept
}
