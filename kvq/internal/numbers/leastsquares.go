package numbers

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// LeastSquares shrinks the range to where the squared error is least.
var LeastSquares = &Quantizer{
	Name:       "least-squares",
	Zeros:      true,
	candidates: func(*Graph, Spec, int) int { return searchSteps },
	encode: func(s Spec, x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
		return quantizeStored(x, axis, s.Bits, valid, s.Scales, searchRange(nil))
	},
}

// The clipping search tries ranges from the whole one down to this part of it. Fewer levels gain
// more from clipping: for normally distributed values the best 4 levels cover 3 standard
// deviations, where minimum and maximum of 32 values lie 4.1 apart.
const (
	searchSteps    = 24
	searchSmallest = 0.4
)

// searchRange shrinks the range of every group, about its middle, to the one of searchSteps
// candidates that gives the least sum of squared errors over the usable elements. weight, where not
// nil, multiplies the squares; it broadcasts to x. Among equals the widest wins, so a constant
// group keeps its range.
func searchRange(weight *Node) rangeFitter {
	return func(x *Node, axis, bits int, usable, low, high *Node) (fitLow, fitHigh *Node) {
		g := x.Graph()
		front := func(n *Node) *Node { return InsertAxes(n, 0) }
		// Candidates lie along a new first axis; XLA fuses it into the sum, so that x is never
		// stored for each of them.
		ones := make([]int, x.Rank()+1)
		for i := range ones {
			ones[i] = 1
		}
		ones[0] = searchSteps
		index := Iota(g, shapes.Make(dtypes.Float32, ones...), 0)
		candidateLow, candidateHigh := shrink(index, front(low), front(high))
		top := float64(int(1)<<bits - 1)
		scale := divideByConstant(Sub(candidateHigh, candidateLow), top)
		codes := gx.ClampScalar(Round(inSteps(Sub(front(x), candidateLow), scale, bits)), 0, top)
		wrong := Square(Sub(Add(Mul(codes, scale), candidateLow), front(x)))
		if weight != nil {
			wrong = Mul(wrong, front(ConvertDType(weight, dtypes.Float32)))
		}
		wrong = Where(gx.BroadcastToDims(front(usable), wrong.Shape().Dimensions...), wrong, gx.ZerosLike(wrong))
		group := axis
		if group >= 0 {
			group++
		}
		errors := gx.ReduceSumAndKeep(wrong, group) // [candidates, ..., 1, ...]
		best := ConvertDType(leastIndex(errors), dtypes.Float32)
		return shrink(best, low, high)
	}
}

// shrink returns the index-th candidate range, index 0 being [low, high] itself.
func shrink(index, low, high *Node) (candidateLow, candidateHigh *Node) {
	cut := Mul(gx.MulScalar(index, (1-searchSmallest)/(2*(searchSteps-1))), Sub(high, low))
	return Add(low, cut), Sub(high, cut)
}

// leastIndex returns the index of the least element along the first axis, which is gone in the
// result; the first of equals.
func leastIndex(x *Node) *Node {
	least := gx.ReduceMinAndKeep(x, 0)
	position := Iota(x.Graph(), shapes.Make(dtypes.Int32, x.Shape().Dimensions...), 0)
	last := gx.Fill(x.Graph(), position.Shape(), x.Shape().Dim(0)-1)
	return gx.ReduceMin(Where(LessOrEqual(x, least), position, last), 0)
}
