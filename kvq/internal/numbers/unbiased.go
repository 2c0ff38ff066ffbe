package numbers

import (
	"math"
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
	candidates: func(g *Graph, s Spec, group int) int {
		n := cutsOf(s.Bits, group, s.Keys).n
		switch {
		case kernelTakes(g, group):
			return 1
		case gx.OnGPU(g):
			return n * n
		}
		return min(n*n, inTurnArrays)
	},
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		codes, scales, zeros, _ = quantizeUnbiased(x, axis, s.Bits, valid, nil, s.Scales, s.Keys)
		return codes, scales, zeros
	},
	width: func(s Spec, x *Node, axis int, valid, weights *Node) (codes, scales, zeros, width *Node) {
		return quantizeUnbiased(x, axis, s.Bits, valid, weights, s.Scales, s.Keys)
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
// Errors of keys are compared by their cubes: a key that is far off is what a softmax notices. With
// weights, errors times these are: see [TokenWeights].
//
// width is that of codes before the gain, float32: see [Spec.EncodeWidth].
func quantizeUnbiased(x *Node, axis, bits int, valid, weights *Node, format ScaleFormat, keys bool) (codes, scale, zero, width *Node) {
	format = format.Storage(x.DType())
	l, full := lanesFor(x, axis), x.Shape().Dimensions
	if l != nil {
		x, axis = l.turn(x), l.axis()
		if valid != nil {
			valid = l.turn(valid)
		}
		if weights != nil {
			weights = l.turn(gx.BroadcastToDims(weights, full...))
		}
	}
	flat, at := inOneRow(x, axis)
	var flatValid, flatWeights *Node
	if valid != nil {
		flatValid, _ = inOneRow(valid, axis)
	}
	if weights != nil {
		flatWeights, _ = inOneRow(weights, axis)
	}
	out := gx.Alone([]*Node{flat, flatValid, flatWeights}, func(in []*Node) []*Node {
		codes, scale, zero, width := rangesAndCodes(in[0], at, bits, in[1], in[2], format, keys)
		return []*Node{codes, scale, zero, width}
	})
	for i := range out {
		d := slices.Clone(x.Shape().Dimensions)
		d[axis] = out[i].Shape().Dim(at)
		out[i] = Reshape(out[i], d...)
		if l != nil {
			out[i] = l.back(out[i])
		}
	}
	return out[0], out[1], out[2], out[3]
}

// inOneRow joins the axes of x before axis, so that XLA's CPU compiler shares groups among threads
// and not heads, which are few. Where devices share the heads, and on a GPU, they stay as they are.
func inOneRow(x *Node, axis int) (flat *Node, at int) {
	if gx.CallsInPlace(x.Graph()) {
		return x, axis
	}
	return Reshape(x, append([]int{-1}, x.Shape().Dimensions[axis:]...)...), 1
}

// rangesAndCodes is quantizeUnbiased for groups as they lie.
func rangesAndCodes(x *Node, axis, bits int, valid, weights *Node, format ScaleFormat, keys bool) (codes, scale, zero, width *Node) {
	x, usable := voters(x, valid)
	f, unit := fittingOf(x, axis, bits, usable)
	f.weights = weights
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

// cuts are the parts of a range that may be cut off at either end: n of them, first, first+step ...
// The first of equals wins, so a constant group, whose range has no parts, takes the first.
type cuts struct {
	n           int
	first, step float64
}

// unbiasedCuts has the widths where a cut pays: the fewer the levels, the more there is to gain. A
// group twice as large has a wider range, from outliers that are rarer, and more is cut off it: so
// much more that two parts are enough for any size. docs/bench-log.md has what they give. Deeper
// cuts want more gain than [mostGain], and then a group shrinks: 1 bit is near that.
var unbiasedCuts = map[int]struct{ of64, perDoubling, step float64 }{
	1: {0.23, 0.02, 0.115},
	2: {0.12, 0.04, 0.08},
	3: {0.03, 0.03, 0.06},
	4: {0, 0.015, 0.03},
}

// cutsOf are the cuts for codes of so many bits in groups of so many elements: none where there is
// nothing to gain.
//
// Keys of 2 bits are others: with errors fed back, whole ranges are worth more to them than the sum
// of cubes says.
func cutsOf(bits, group int, keys bool) cuts {
	c, ok := unbiasedCuts[bits]
	switch {
	case !ok:
		return cuts{n: 1}
	case keys && bits == 2:
		return cuts{3, 0, 0.115}
	}
	return cuts{2, max(0, c.of64+c.perDoubling*math.Log2(float64(group)/64)), c.step}
}

// Cuts are the parts of a range that an unbiased one may leave out at either end, for groups of so
// many elements: n of them, first, first+step, ... With one there is no search.
func (s Spec) Cuts(group int) (n int, first, step float64) {
	c := cutsOf(s.Bits, group, s.Keys)
	return c.n, c.first, c.step
}

// search returns the parts of each group's range to cut off at its ends.
func (f fitting) search(keys bool) (cutLow, cutHigh *Node) {
	size := f.searched().size
	cuts := cutsOf(f.bits, size, keys)
	if cuts.n == 1 {
		return gx.ZerosLike(f.low), gx.ZerosLike(f.low)
	}
	switch g := f.x.Graph(); {
	case kernelTakes(g, size):
		return cuts.of(f.byKernel(cuts, keys))
	case gx.OnGPU(g):
		return cuts.of(f.atOnce(cuts, keys))
	}
	return cuts.of(f.inTurn(cuts, keys))
}

// of gives the parts of a candidate, int32.
func (c cuts) of(index *Node) (cutLow, cutHigh *Node) {
	n := gx.Fill(index.Graph(), index.Shape(), c.n)
	part := func(x *Node) *Node {
		return gx.AddScalar(gx.MulScalar(ConvertDType(x, dtypes.Float32), c.step), c.first)
	}
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

// inTurnArrays is how many arrays like x the search takes that tries one candidate after the other.
const inTurnArrays = 4

// inTurn tries one candidate after the other, so that what one needs stays in a processor's cache.
func (f fitting) inTurn(cuts cuts, keys bool) (best *Node) {
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
	return out[1]
}

// cost is the error of each group with a candidate.
func (f fitting) cost(cuts cuts, index *Node, keys bool) *Node {
	cutLow, cutHigh := cuts.of(index)
	steps, step, middle := f.try(f.x, cutLow, cutHigh)
	wrong := Sub(Add(Mul(steps, step), middle), f.x)
	if f.weights != nil {
		wrong = Mul(wrong, gx.BroadcastToDims(f.weights, wrong.Shape().Dimensions...))
	}
	cost := Square(wrong)
	if keys {
		cost = Mul(cost, Abs(wrong))
	}
	return f.sum(Mul(cost, f.vote))
}

// nodes are the arrays of f, and with is f with others in their places.
func (f fitting) nodes() []*Node {
	list := []*Node{f.x, f.vote, f.centred, f.spread, f.low, f.high}
	if f.weights != nil {
		list = append(list, f.weights)
	}
	return list
}

func (f fitting) with(x []*Node) fitting {
	f.x, f.vote, f.centred, f.spread, f.low, f.high = x[0], x[1], x[2], x[3], x[4], x[5]
	if f.weights != nil {
		f.weights = x[6]
	}
	return f
}

// lanes puts groups that run along the last axis side by side: [rows, heads, ..., G] to [rows,
// heads, n, G, lanes]. XLA's CPU compiler vectorizes along the last axis, so it must not be the one
// that is summed. Rows and heads stay as they are, since devices share the heads.
type lanes struct{ from, outer []int }

// lanesFor is how x with groups along axis is turned; nil where it is not: on a GPU, and along
// other axes.
func lanesFor(x *Node, axis int) *lanes {
	d := x.Shape().Dimensions
	if axis != len(d)-1 || gx.OnGPU(x.Graph()) {
		return nil
	}
	l := &lanes{from: d[:len(d)-1], outer: slices.Clone(d[:min(2, len(d)-1)])}
	groups := 1
	for _, n := range d[len(l.outer) : len(d)-1] {
		groups *= n
	}
	side := groups
	if groups%laneCount == 0 {
		side = laneCount
	}
	l.outer = append(l.outer, groups/side, side)
	return l
}

// axis is the one along which groups run then.
func (l *lanes) axis() int { return len(l.outer) - 1 }

func (l *lanes) turn(x *Node) *Node {
	return Transpose(Reshape(x, append(slices.Clone(l.outer), x.Shape().Dim(-1))...), -1, -2)
}

// back is the way back, for elements and for what there is one of for each group.
func (l *lanes) back(x *Node) *Node {
	return Reshape(Transpose(x, -1, -2), append(slices.Clone(l.from), x.Shape().Dim(-2))...)
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
	spread           *Node // Σ centred²
	low, high        *Node
	weights          *Node // what errors are multiplied by, x's shape or 1; nil: nothing
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
	f.centred = Mul(Sub(f.x, Div(f.sum(f.x), gx.MaxScalar(f.sum(f.vote), 1))), f.vote)
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
// symmetrically about 0 and step already has the gain. Those of elements without a vote mean
// nothing.
//
// The mean of steps need not be taken off them: centred adds up to 0.
func (f fitting) try(x, cutLow, cutHigh *Node) (steps, step, middle *Node) {
	half := float64(int(1)<<f.bits-1) / 2
	middle, fine := f.cut(cutLow, cutHigh)
	steps = gx.SubScalar(gx.ClampScalar(Round(gx.AddScalar(Div(Sub(x, middle), positiveOr1(fine)), half)), 0, 2*half), half)
	common := Mul(f.sum(Mul(f.centred, steps)), fine)
	gain := gx.ClampScalar(Div(f.spread, gx.MaxScalar(common, tiny)), leastGain, mostGain)
	return steps, Mul(fine, gain), middle
}
