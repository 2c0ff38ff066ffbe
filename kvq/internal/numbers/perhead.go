package numbers

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// perHeadUnits returns x in units of its group's scale, float32 in [-largest, largest], and the
// scale as stored.
func perHeadUnits(x *Node, axis int, valid *Node, format ScaleFormat, largest float64) (units, scale *Node) {
	format = format.Storage(x.DType())
	x, usable := voters(x, valid)
	scale = format.EncodeScale(groupPeak(x, axis, usable), largest)
	step := format.DecodeScale(scale)
	units = gx.ClampScalar(Div(x, positiveOr1(step)), -largest, largest)
	return Where(keep(x, step, valid), units, gx.ZerosLike(units)), scale
}
