package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/pkg/errors"
)

// Symmetric covers every value too, with the same range on both sides of 0 and no zero point.
var Symmetric = &Quantizer{
	Name: "symmetric",
	Check: func(s Spec) error {
		if s.Bits == 1 {
			return errors.Errorf("NBits: symmetric codes have a middle one for 0, want at least 2 bits, got 1")
		}
		return nil
	},
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		codes, scales = quantizeSymmetric(x, axis, s.Bits, valid, s.Scales)
		return codes, scales, nil
	},
}

// quantizeSymmetric has no zero point: the codes lie around the middle one, which stands for 0.
//
//	scale = max|x| / (2^(bits-1) - 1)       code = clamp(round_half_even(x / scale) + 2^(bits-1), 1, 2^bits - 1)
//	                                        value = scale·(code - 2^(bits-1))
//
// Code 0 is not used, so that the range is the same on both sides: 2 bits have the levels -1, 0 and
// 1. bits is at least 2. codes uint8, shape of x; scale as stored in format, axis of size 1.
func quantizeSymmetric(x *Node, axis, bits int, valid *Node, format ScaleFormat) (codes, scale *Node) {
	if bits < 2 {
		exceptions.Panicf("kvq: symmetric codes of %d bits, want at least 2", bits)
	}
	format = format.Storage(x.DType())
	x, usable := voters(x, valid)
	middle := int(1) << (bits - 1)
	// Attention reads scale·code - scale·middle, and neither of them may overflow: the range is
	// limited to a little less than half of float32's.
	largest := largestPeak / float64(2*middle-1)
	scale = format.EncodeScale(gx.MinScalar(groupPeak(x, axis, usable), largest*float64(middle-1)), float64(middle-1))
	step := format.DecodeScale(scale)
	steps := gx.ClampScalar(Round(inSteps(x, step, bits)), float64(1-middle), float64(middle-1))
	steps = gx.AddScalar(Where(keep(x, step, valid), steps, gx.ZerosLike(steps)), middle)
	return ConvertDType(steps, dtypes.Uint8), scale
}
