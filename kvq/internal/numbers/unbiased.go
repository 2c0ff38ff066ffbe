package numbers

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Unbiased shrinks the range, and then widens the scale so that the decoded group varies as the
// original does.
var Unbiased = &Quantizer{
	Name:  "unbiased",
	Zeros: true,
	candidates: func(g *Graph, bits, group int) int {
		if kernelTakes(g, group) {
			return 1
		}
		n := cutsOf(bits).n
		return n * n
	},
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		codes, scales, zeros, _ = quantizeUnbiased(x, axis, s.Bits, valid, s.Scales, s.Keys)
		return codes, scales, zeros
	},
	width: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros, width *Node) {
		return quantizeUnbiased(x, axis, s.Bits, valid, s.Scales, s.Keys)
	},
}

// quantizeUnbiased clips a group where that costs least, and makes up for it in the scale.
//
// Cutting a range makes steps finer and pulls outliers in. A least-squares search stops there; but
// then the decoded group varies less than the original, and by the same part in every channel or
// token: a bias that attention's sums do not average away. So for every candidate range the codes
// are made first and then the scale is multiplied by the gain that undoes the shrinking,
//
//	gain = Σ (x - mean)² / Σ (x - mean)·(x' - mean'),    x' the decoded values
//
// which makes the regression of x' on x one of slope 1. Only then errors are compared. Candidates
// cut both ends apart, see [cuts].
//
//	x as in [quantizeMinMax]; scale and zero as stored in format, rounded to nearest: the codes were made with others
//
// Errors of keys are compared by their cubes: a key that is far off is what a softmax notices.
//
// width is that of codes before the gain, float32: see [Spec.EncodeWidth].
func quantizeUnbiased(x *Node, axis, bits int, valid *Node, format ScaleFormat, keys bool) (codes, scale, zero, width *Node) {
	format = format.Storage(x.DType())
	x, usable := voters(x, valid)
	f, unit := fittingOf(x, axis, bits, usable)
	cutLow, cutHigh := f.search(keys)
	steps, step, middle := f.try(f.x, cutLow, cutHigh)
	half := float64(int(1)<<bits-1) / 2
	// What had no vote: infinities are at their end of the range, NaN is at the lower one.
	end := Where(gx.GreaterThanScalar(x, 0), gx.Fill(x.Graph(), x.Shape(), half), gx.Fill(x.Graph(), x.Shape(), -half))
	steps = Where(usable, steps, end)
	step, middle = Mul(step, unit), Mul(middle, unit)
	scale, zero = format.encodeNearest(step, Sub(middle, gx.MulScalar(step, half)), bits)
	stored := format.DecodeScale(scale)
	codes = codesOf(gx.AddScalar(steps, half), stored, bits, valid)
	_, fine := f.cut(cutLow, cutHigh)
	return codes, scale, zero, Mul(fine, unit)
}

// cuts are the parts of a range that may be cut off at either end: n of them, 0, step, 2·step …
// Part 0 is the first, and the first of equals wins, so a constant group keeps its range.
type cuts struct {
	n    int
	step float64
}

// unbiasedCuts has the widths where a cut pays: the fewer the levels, the more there is to gain.
var unbiasedCuts = map[int]cuts{1: {4, 0.115}, 2: {4, 0.115}, 3: {4, 0.1}, 4: {3, 0.07}}

// cutsOf are the cuts for codes of so many bits: none where there is nothing to gain.
func cutsOf(bits int) cuts {
	if c, ok := unbiasedCuts[bits]; ok {
		return c
	}
	return cuts{n: 1}
}

// search returns the parts of each group's range to cut off at its ends.
func (f fitting) search(keys bool) (cutLow, cutHigh *Node) {
	cuts := cutsOf(f.bits)
	if cuts.n == 1 {
		return gx.ZerosLike(f.low), gx.ZerosLike(f.low)
	}
	switch g := f.x.Graph(); {
	case kernelTakes(g, f.searched().size):
		return cuts.of(f.byKernel(cuts, keys))
	case gx.OnGPU(g):
		return cuts.of(f.atOnce(cuts, keys))
	}
	return cuts.of(f.inTurn(cuts, keys))
}

// of gives the parts of a candidate, int32.
func (c cuts) of(index *Node) (cutLow, cutHigh *Node) {
	n := gx.Fill(index.Graph(), index.Shape(), c.n)
	part := func(x *Node) *Node { return gx.MulScalar(ConvertDType(x, dtypes.Float32), c.step) }
	return part(Div(index, n)), part(Rem(index, n))
}

// atOnce finds each group's best candidate with all of them along a new first axis: the fewest
// kernels of a GPU, where there is none for the search.
func (f fitting) atOnce(cuts cuts, keys bool) (best *Node) {
	return leastIndex(f.costs(cuts, keys))
}

// costs are the errors of each group with every candidate, along a new first axis.
func (f fitting) costs(cuts cuts, keys bool) *Node {
	all := f.nodes()
	for i, x := range all {
		all[i] = gx.BroadcastToDims(InsertAxes(x, 0), append([]int{cuts.n * cuts.n}, x.Shape().Dimensions...)...)
	}
	each := f.with(all)
	return each.cost(cuts, Iota(f.x.Graph(), shapes.Make(dtypes.Int32, each.low.Shape().Dimensions...), 0), keys)
}

// inTurn tries one candidate after the other, so that what one needs stays in a processor's cache.
func (f fitting) inTurn(cuts cuts, keys bool) (best *Node) {
	shape := f.low.Shape().Dimensions
	f = f.inLanes()
	small := f.low.Shape().Dimensions
	g := f.x.Graph()
	first := []*Node{gx.Scalar(g, dtypes.Int32, 0), gx.Zeros(g, shapes.Make(dtypes.Int32, small...)),
		gx.BroadcastToDims(gx.Inf(g, dtypes.Float32), small...)}
	out := gx.LoopOver(f.nodes(), first,
		func(st []*Node) *Node { return gx.LessThanScalar(st[0], cuts.n*cuts.n) },
		func(captured, st []*Node) []*Node {
			index := gx.BroadcastToDims(st[0], small...)
			cost := f.with(captured).cost(cuts, index, keys)
			better := LessThan(cost, st[2])
			return []*Node{gx.AddScalar(st[0], 1), Where(better, index, st[1]), Where(better, cost, st[2])}
		})
	return Reshape(out[1], shape...)
}

// cost is the error of each group with a candidate.
func (f fitting) cost(cuts cuts, index *Node, keys bool) *Node {
	cutLow, cutHigh := cuts.of(index)
	steps, step, middle := f.try(f.x, cutLow, cutHigh)
	wrong := Abs(Mul(Sub(Add(Mul(steps, step), middle), f.x), f.vote))
	cost := Square(wrong)
	if keys {
		cost = Mul(cost, wrong)
	}
	return f.sum(cost)
}

// nodes are the arrays of f, and with is f with others in their places.
func (f fitting) nodes() []*Node {
	return []*Node{f.x, f.vote, f.centred, f.count, f.spread, f.low, f.high}
}

func (f fitting) with(x []*Node) fitting {
	return fitting{x[0], x[1], x[2], x[3], x[4], x[5], x[6], f.axis, f.bits}
}

// inLanes puts groups that run along the last axis side by side: [rows, heads, ..., G] to [rows,
// heads, n, G, lanes]. XLA's CPU compiler vectorizes along the last axis, so it must not be the one
// that is summed. Rows and heads stay as they are, since devices share the heads.
func (f fitting) inLanes() fitting {
	if f.axis != -1 {
		return f
	}
	turn := func(x *Node) *Node {
		d := x.Shape().Dimensions
		outer, of, groups := d[:min(2, len(d)-1)], d[len(d)-1], 1
		for _, n := range d[len(outer) : len(d)-1] {
			groups *= n
		}
		lanes := groups
		if groups%laneCount == 0 {
			lanes = laneCount
		}
		x = Reshape(x, slices.Concat(outer, []int{groups / lanes, lanes, of})...)
		return Transpose(x, -1, -2)
	}
	turned := f.nodes()
	for i, x := range turned {
		turned[i] = turn(x)
	}
	f.axis = -2
	return f.with(turned)
}

// laneCount is how many groups lie side by side: vectors of a processor hold up to 16 numbers.
const laneCount = 32

// tiny keeps a division by nothing finite. A gain beyond its limits is that of a group with one
// outlier, which it would only make worse.
const (
	tiny                = 1e-30
	leastGain, mostGain = 0.8, 1.6
)

// fitting is a group under quantization: everything that does not depend on the candidate range.
// Float32; elements without a vote are 0 in x and centred.
type fitting struct {
	x, vote, centred *Node
	count, spread    *Node // votes; Σ centred²
	low, high        *Node
	axis, bits       int
}

// fittingOf makes it for groups of float32 x along axis, in units of their largest magnitude: then
// no square or cube leaves float32.
func fittingOf(x *Node, axis, bits int, usable *Node) (f fitting, unit *Node) {
	low, high := groupRange(x, axis, bits, usable, dtypes.Float32)
	limits, _ := narrowFormat(dtypes.Float32) // the gain widens a range
	low, high = gx.ClampScalar(low, -limits.limit, limits.limit), gx.ClampScalar(high, -limits.limit, limits.limit)
	unit = gx.MinScalar(positiveOr1(Max(Abs(low), Abs(high))), largestDivisor)
	low, high = Div(low, unit), Div(high, unit)
	f = fitting{vote: ConvertDType(usable, dtypes.Float32), axis: axis - x.Rank(), bits: bits, low: low, high: high}
	f.x = Where(usable, Min(Max(Div(x, unit), low), high), gx.ZerosLike(x))
	f.count = gx.MaxScalar(f.sum(f.vote), 1)
	f.centred = Mul(Sub(f.x, Div(f.sum(f.x), f.count)), f.vote)
	f.spread = f.sum(Square(f.centred))
	return f, unit
}

func (f fitting) sum(x *Node) *Node { return gx.SumHalvesAndKeep(x, f.axis) }

// cut is the range without the parts cutLow and cutHigh of it at its ends: its middle, and the
// width of a code.
func (f fitting) cut(cutLow, cutHigh *Node) (middle, fine *Node) {
	width := Sub(f.high, f.low)
	low, high := Add(f.low, Mul(width, cutLow)), Sub(f.high, Mul(width, cutHigh))
	return gx.MulScalar(Add(low, high), 0.5), divideByConstant(Sub(high, low), float64(int(1)<<f.bits-1))
}

// try makes codes for a range that is cut: value = step·steps + middle, where steps lie
// symmetrically about 0 and step already has the gain.
func (f fitting) try(x, cutLow, cutHigh *Node) (steps, step, middle *Node) {
	half := float64(int(1)<<f.bits-1) / 2
	middle, fine := f.cut(cutLow, cutHigh)
	steps = gx.SubScalar(gx.ClampScalar(Round(gx.AddScalar(Div(Sub(x, middle), positiveOr1(fine)), half)), 0, 2*half), half)
	steps = Mul(steps, f.vote)
	mean := Div(f.sum(steps), f.count)
	common := Mul(f.sum(Mul(f.centred, Sub(steps, mean))), fine)
	gain := gx.ClampScalar(Div(f.spread, gx.MaxScalar(common, tiny)), leastGain, mostGain)
	return steps, Mul(fine, gain), middle
}
