package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// MinMax covers every value of a group. With scales in the dtype of the numbers it is quanto's, bit
// for bit.
var MinMax = &Quantizer{
	Name:  "min-max",
	Zeros: true,
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		if s.Scales == "" {
			return quantizeMinMax(x, axis, s.Bits, valid)
		}
		return quantizeStored(x, axis, s.Bits, valid, s.Scales, nil)
	},
}

// quantizeMinMax is quanto's affine quantizer with the range of MaxOptimizer, bit for bit, whatever
// the dtype of x: float32, or float16 and bfloat16 with every operation rounded to the dtype.
// Source: optimum-quanto 0.2.7, MaxOptimizer and quantize_affine.
//
//	scale = (max - min) / (2^bits - 1)      code = clamp(round_half_even((x - min) / scale), 0, 2^bits - 1)
//	zero  = min                             value = scale·code + zero
//
//	x      [..., G, ...], groups along axis
//	valid  nil, or booleans that broadcast to x
//	codes  uint8, shape of x; scale, zero: dtype and shape of x with axis of size 1
//
// It differs from quanto where a group's range overflows (see above) and in a quirk: quanto stores
// a tensor that is a single group along axis 0 without loss.
func quantizeMinMax(x *Node, axis, bits int, valid *Node) (codes, scale, zero *Node) {
	dtype := x.DType()
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtype)
	scale = rangeScale(low, high, bits, dtype)
	steps := roundTo(inSteps(roundTo(Sub(x, low), dtype), scale, bits), dtype)
	return codesOf(steps, scale, bits, valid), ConvertDType(scale, dtype), ConvertDType(low, dtype)
}

// rangeFitter chooses the range [low', high'] that codes of a group cover from the minimum and
// maximum of its usable elements. All float32; x has the group along axis, low and high have size 1
// there.
type rangeFitter func(x *Node, axis, bits int, usable, low, high *Node) (fitLow, fitHigh *Node)

// quantizeStored is the min-max quantizer for scales and zero points that are stored in a format of
// their own: the range is rounded to the format first, outward, and the codes are made with what is
// stored. fit chooses the range from minimum and maximum; nil takes them as they are.
//
// codes as in [quantizeMinMax]; scale and zero as stored, see [ScaleFormat.encodeRange].
func quantizeStored(x *Node, axis, bits int, valid *Node, format ScaleFormat, fit rangeFitter) (codes, scale, zero *Node) {
	format = format.Storage(x.DType())
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtypes.Float32)
	f, _ := narrowFormat(dtypes.Float32)
	// a scale rounded up could overflow
	low, high = gx.ClampScalar(low, -f.limit, f.limit), gx.ClampScalar(high, -f.limit, f.limit)
	if fit != nil {
		low, high = fit(x, axis, bits, usable, low, high)
	}
	scale, zero = format.encodeRange(low, high, bits)
	step := format.DecodeScale(scale)
	steps := inSteps(Sub(x, format.DecodeZero(zero, step, bits)), step, bits)
	return codesOf(steps, step, bits, valid), scale, zero
}
