package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// Int8 stores signed bytes.
var Int8 = &Quantizer{
	Name:    "int8",
	Element: dtypes.Int8,
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		codes, scales = quantizeInt8(x, axis, valid, s.Scales)
		return codes, scales, nil
	},
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
