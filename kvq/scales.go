package kvq

import "github.com/kvqbook/kvqbook/kvq/internal/numbers"

// ScaleFormat says how scales and zero points are stored. Codes are always made with the scale and
// zero point as they are stored, not as they were before rounding, so that rounding them costs
// range but no accuracy: scales are rounded up and float zero points down, and every finite value
// stays within half a step of its code, plus the rounding of the arithmetic.
type ScaleFormat = numbers.ScaleFormat

const (
	// ScaleFloat32, ScaleFloat16 and ScaleBFloat16 store both as such floats. Values beyond the
	// largest finite number of the format (65504 for float16) saturate: nothing becomes infinite.
	ScaleFloat32  = numbers.ScaleFloat32
	ScaleFloat16  = numbers.ScaleFloat16
	ScaleBFloat16 = numbers.ScaleBFloat16

	// Scale8 stores both in a byte.
	//
	//	scale  | exponent: 4 bits, bias 9 | mantissa: 4 bits |    no sign; from 2^-12 to 124, normal from 2^-8 on
	//	zero   a signed byte r (stored as r + 128) in units of u steps: zero = r·u·scale
	//
	// The mantissa of 4 bits costs up to 1/16 of the range, on average 2.5 %. Larger scales
	// saturate. The unit u is 2^-(6-bits), or 1 for 6 bits and more: the zero point is right to
	// half a unit and reaches two ranges below and above 0 (half a range for 8 bits). A group that
	// lies farther off gets a larger scale.
	Scale8 = numbers.Scale8
)
