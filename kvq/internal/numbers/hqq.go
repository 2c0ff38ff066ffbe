package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/pkg/errors"
)

// HQQ searches the zero point by half-quadratic splitting.
var HQQ = &Quantizer{
	Name:  "hqq",
	Zeros: true,
	Check: func(s Spec) error {
		if s.Scales == Scale8 {
			return errors.Errorf("Scales: hqq searches zero points that a byte cannot hold; want %q, %q, %q or nothing, got %q",
				ScaleFloat32, ScaleFloat16, ScaleBFloat16, s.Scales)
		}
		return nil
	},
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		stopAxes := []int{axis}
		if s.WholeRow { // the stop rule sees one row: rows stay independent
			stopAxes = nil
			for i := 1; i < x.Rank(); i++ {
				stopAxes = append(stopAxes, i)
			}
		}
		return quantizeHQQ(x, axis, s.Bits, valid, stopAxes, s.Scales)
	},
}

// Constants of hqq 0.2.8: Quantizer.quantize and optimize_weights_proximal_legacy.
const (
	hqqIterations   = 20
	hqqNorm         = 0.7  // the p of the l_p norm that the search lowers
	hqqBeta         = 10   // weight of the coupling; the legacy loop never raises it
	hqqNarrowRange  = 1e-4 // ranges up to this get scale 1
	hqqLargestScale = 2e4
	smallestNormal  = 0x1p-126
)

// solveHQQ is hqq's quantizer: the scale of the whole range, and a zero point found by
// half-quadratic splitting, which lowers the l_0.7 norm of the error. Source: hqq 0.2.8,
// Quantizer.quantize with optimize_weights_proximal_legacy, on the CPU (float32).
//
//	x         [..., G, ...] with groups along axis, any float dtype, solved in float32
//	valid     nil, or booleans that broadcast to x: others have no vote
//	stopAxes  axes over which the mean error that stops the search is taken, group axis included; nil: all, as hqq does, so that
//	          groups everywhere decide when a group stops. A cache names the axes inside a row, so that rows stay independent
//	codes     uint8, shape of x; factor and z: float32, axis of size 1
//
//	value = (code - z)·factor
//
// Each z is a mean that torch sums in another order, and its powers differ in the last place, so z
// agrees with hqq's to 5e-7 of the code range as a rule and to 1e-4 always rather than bit for bit;
// a code may then differ where x lies on the border of two.
func solveHQQ(x *Node, axis, bits int, valid *Node, stopAxes []int) (codes, factor, z *Node) {
	x, usable := voters(x, valid)
	low, high := groupRange(x, axis, bits, usable, dtypes.Float32)
	top := float64(int(1)<<bits - 1)
	span := Sub(high, low)
	scale := gx.MulScalar(Div(gx.OnesLike(span), span), top) // as torch computes number / tensor
	// where that reciprocal would be a denormal number, which XLA's CPU code takes for 0
	scale = Where(gx.GreaterThanScalar(span, largestDivisor), Div(gx.Fill(x.Graph(), span.Shape(), top), span), scale)
	scale = Where(gx.LessOrEqualScalar(span, hqqNarrowRange), gx.OnesLike(scale), scale)
	// hqq has no lower limit; below this one, 1/scale overflows
	scale = gx.ClampScalar(scale, smallestNormal, hqqLargestScale)
	clean := Where(usable, x, gx.ZerosLike(x))
	z = searchZero(clean, usable, scale, Mul(Neg(low), scale), axis, top, stopAxes)
	codes = hqqCodes(Where(IsNaN(x), gx.BroadcastToDims(low, x.Shape().Dimensions...), x), scale, z, top)
	if valid != nil {
		codes = Where(gx.BroadcastToDims(valid, codes.Shape().Dimensions...), codes, gx.ZerosLike(codes))
	}
	return ConvertDType(codes, dtypes.Uint8), Div(gx.OnesLike(scale), scale), z
}

// searchZero runs the iterations: x without votes is 0 and not usable. Groups whose stop rule has
// fired keep their zero point.
func searchZero(x, usable, scale, z *Node, axis int, top float64, stopAxes []int) *Node {
	g := x.Graph()
	if stopAxes == nil {
		for i := range x.Rank() {
			stopAxes = append(stopAxes, i)
		}
	}
	count := ConvertDType(usable, dtypes.Float32)
	inGroup := gx.MaxScalar(gx.ReduceSumAndKeep(count, axis), 1)
	inRow := gx.MaxScalar(gx.ReduceSumAndKeep(count, stopAxes...), 1)
	best := gx.Fill(g, inRow.Shape(), math.Inf(1))
	running := gx.Ones(g, best.Shape().Clone())
	state := []*Node{gx.Scalar(g, dtypes.Int32, 0), z, best, running, x, count, scale, inGroup, inRow}
	state = gx.Loop(state,
		func(st []*Node) *Node {
			return And(gx.LessThanScalar(st[0], hqqIterations), gx.GreaterThanScalar(gx.ReduceMax(st[3]), 0))
		},
		func(st []*Node) []*Node {
			i, z, best, running, x, count, scale, inGroup, inRow := st[0], st[1], st[2], st[3], st[4], st[5], st[6], st[7], st[8]
			codes := hqqCodes(x, scale, z, top)
			wrong := Sub(x, Div(Sub(codes, z), scale))
			target := Mul(Sub(x, shrinkError(wrong)), scale)
			next := Div(gx.ReduceSumAndKeep(Mul(Sub(codes, target), count), axis), inGroup)
			mean := Div(gx.ReduceSumAndKeep(Mul(Abs(wrong), count), stopAxes...), inRow)
			// hqq moves the zero point first and stops afterwards: the one of the iteration that
			// did no better stays.
			active := gx.GreaterThanScalar(running, 0)
			// Near float32's ends a step can leave the numbers; the zero point before it stays.
			finite := gx.LessOrEqualScalar(Abs(next), math.MaxFloat32)
			z = Where(And(gx.BroadcastToDims(active, z.Shape().Dimensions...), finite), next, z)
			better := LessThan(mean, best)
			running = Where(And(active, better), running, gx.ZerosLike(running))
			return []*Node{gx.AddScalar(i, 1), z, Where(better, mean, best), running, x, count, scale, inGroup, inRow}
		})
	return state[1]
}

// hqqCodes returns the codes as float32.
func hqqCodes(x, scale, z *Node, top float64) *Node {
	return gx.ClampScalar(Round(Add(Mul(x, scale), z)), 0, top)
}

// shrinkError is the proximal step of the l_p norm: what is left of an error e when |e|^(p-1)/beta
// is taken off its size.
func shrinkError(e *Node) *Node {
	size := Abs(e)
	left := gx.MaxScalar(Sub(size, gx.DivScalar(gx.PowScalar(size, hqqNorm-1), hqqBeta)), 0)
	return Mul(Sign(e), left)
}

// quantizeHQQ is [solveHQQ] with the form of value that all affine codes of a cache have:
//
//	value = scale·code + zero, with scale = factor, zero = -z·factor
//
// It differs from hqq's (code - z)·factor by rounding only. scale and zero are stored in format, to
// nearest: the zero point is the best one for this scale, so rounding it outward would undo the
// search.
func quantizeHQQ(x *Node, axis, bits int, valid *Node, stopAxes []int, format ScaleFormat) (codes, scale, zero *Node) {
	format = format.Storage(x.DType())
	if format == Scale8 {
		exceptions.Panicf("kvq: backend hqq with scales in 8 bits, want float32, float16 or bfloat16")
	}
	codes, scale, z := solveHQQ(x, axis, bits, valid, stopAxes)
	dtype := format.DType(dtypes.InvalidDType)
	f, _ := narrowFormat(dtype)
	store := func(n *Node) *Node {
		return ConvertDType(gx.ClampScalar(roundTo(n, dtype), -f.largest, f.largest), dtype)
	}
	return codes, store(scale), store(Neg(Mul(z, scale)))
}
