package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// quantizeUnbiased clips a group where that costs least, and makes up for it in the scale.
//
// Cutting a range makes steps finer and pulls outliers in. A least-squares search stops there; but then the decoded group varies less than
// the original, and by the same part in every channel or token: a bias that attention's sums do not average away. So for every candidate
// range the codes are made first and then the scale is multiplied by the gain that undoes the shrinking,
//
//	gain = Σ (x - mean)² / Σ (x - mean)·(x' - mean'),    x' the decoded values
//
// which makes the regression of x' on x one of slope 1. Only then errors are compared. Candidates cut both ends apart, each by one of
// unbiasedCuts of the range.
//
//	x as in [quantizeMinMax]; scale and zero as stored in format, rounded to nearest: the codes were made with others
//
// Errors of keys are compared by their cubes: a key that is far off is what a softmax notices.
func quantizeUnbiased(x *Node, axis, bits int, valid *Node, format ScaleFormat, keys bool) (codes, scale, zero *Node) {
	format = format.storage(x.DType())
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtypes.Float32)
	// In units of the largest magnitude, so that no square or cube leaves float32.
	unit := positiveOr1(Max(Abs(low), Abs(high)))
	low, high = Div(low, unit), Div(high, unit)
	f := fitting{vote: ConvertDType(usable, dtypes.Float32), axis: axis, bits: bits, low: low, high: high}
	f.x = Where(usable, Min(Max(Div(x, unit), low), high), gx.ZerosLike(x))
	f.count = gx.MaxScalar(f.sum(f.vote), 1)
	f.centred = Mul(Sub(f.x, Div(f.sum(f.x), f.count)), f.vote)
	f.spread = f.sum(Square(f.centred))

	var best, bestCutLow, bestCutHigh *Node
	for _, cutLow := range unbiasedCuts[bits] {
		for _, cutHigh := range unbiasedCuts[bits] {
			steps, step, middle := f.try(gx.Fill(x.Graph(), low.Shape(), cutLow), gx.Fill(x.Graph(), low.Shape(), cutHigh))
			wrong := Abs(Mul(Sub(Add(Mul(steps, step), middle), f.x), f.vote))
			cost := Square(wrong)
			if keys {
				cost = Mul(cost, wrong)
			}
			total := f.sum(cost)
			lows, highs := gx.Fill(x.Graph(), low.Shape(), cutLow), gx.Fill(x.Graph(), low.Shape(), cutHigh)
			if best == nil {
				best, bestCutLow, bestCutHigh = total, lows, highs
				continue
			}
			better := LessThan(total, best)
			best, bestCutLow, bestCutHigh = Where(better, total, best), Where(better, lows, bestCutLow), Where(better, highs, bestCutHigh)
		}
	}
	steps, step, middle := f.try(bestCutLow, bestCutHigh)
	half := float64(int(1)<<bits-1) / 2
	step, middle = Mul(step, unit), Mul(middle, unit)
	scale, zero = format.encodeNearest(step, Sub(middle, gx.MulScalar(step, half)), bits)
	stored := format.decodeScale(scale)
	codes = codesOf(gx.AddScalar(steps, half), stored, bits, valid)
	return codes, scale, zero
}

// unbiasedCuts are the parts of a range that may be cut off at either end: the fewer the levels, the more there is to gain. The first is
// 0, so that a constant group keeps its range.
var unbiasedCuts = map[int][]float64{
	2: {0, 0.12, 0.23, 0.35},
	3: {0, 0.1, 0.2},
	4: {0, 0.07, 0.14},
	5: {0, 0.05, 0.1},
	6: {0, 0.03},
	8: {0},
}

// tiny keeps a division by nothing finite.
const tiny = 1e-30

// fitting is a group under quantization: everything that does not depend on the candidate range. Float32; elements without a vote are 0 in
// x and centred.
type fitting struct {
	x, vote, centred *Node
	count, spread    *Node // votes; Σ centred²
	low, high        *Node
	axis, bits       int
}

func (f fitting) sum(x *Node) *Node { return gx.ReduceSumAndKeep(x, f.axis) }

// try makes codes for the range without the parts cutLow and cutHigh of it at its ends: value = step·steps + middle, where steps lie
// symmetrically about 0 and step already has the gain.
func (f fitting) try(cutLow, cutHigh *Node) (steps, step, middle *Node) {
	width := Sub(f.high, f.low)
	half := float64(int(1)<<f.bits-1) / 2
	low, high := Add(f.low, Mul(width, cutLow)), Sub(f.high, Mul(width, cutHigh))
	middle = gx.MulScalar(Add(low, high), 0.5)
	fine := divideByConstant(Sub(high, low), 2*half)
	steps = gx.SubScalar(gx.ClampScalar(Round(gx.AddScalar(Div(Sub(f.x, middle), positiveOr1(fine)), half)), 0, 2*half), half)
	steps = Mul(steps, f.vote)
	mean := Div(f.sum(steps), f.count)
	common := Mul(f.sum(Mul(f.centred, Sub(steps, mean))), fine)
	gain := gx.ClampScalar(Div(f.spread, gx.MaxScalar(common, tiny)), 0.8, 1.6)
	return steps, Mul(fine, gain), middle
}
