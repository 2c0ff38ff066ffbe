package gx

import (
	"github.com/gomlx/gomlx/core/graph"
)

// The sums of this file are written so that XLA's CPU compiler makes one vectorized loop over the
// last axis of each. It does not vectorize a reduction over another axis, and hands sums and
// products of whole arrays to its library YNN, for which it splits loops (jaxlib 0.11.2, seen in
// its dumps). Nor does it vectorize a short loop of few operations, such as exp of 32 elements:
// LLVM writes that out first (PJRT 0.115, seen in its machine code).

// SumInPairs adds terms of one shape in pairs, so that an addition need not wait for the one
// before.
func SumInPairs(terms []*graph.Node) *graph.Node {
	for len(terms) > 1 {
		terms = append(terms[2:], graph.Add(terms[0], terms[1]))
	}
	return terms[0]
}

// SumInChains adds terms of one shape in two chains, the even and the odd ones. It is for terms
// that are products: each of them joins its chain as one multiply-add.
func SumInChains(terms []*graph.Node) *graph.Node {
	even := terms[0]
	var odd *graph.Node
	for k, term := range terms[1:] {
		switch {
		case k%2 == 1:
			even = graph.Add(even, term)
		case odd == nil:
			odd = term
		default:
			odd = graph.Add(odd, term)
		}
	}
	if odd == nil {
		return even
	}
	return graph.Add(even, odd)
}

// SumHalvesAndKeep sums an axis of x, which stays with size 1: one half of it is added to the other
// until one entry is left, each time as a vectorized loop. It is for sums of the same arrays many
// times over, where a reduction would make each of their elements anew, one by one. On a GPU it is
// a reduction.
func SumHalvesAndKeep(x *graph.Node, axis int) *graph.Node {
	if OnGPU(x.Graph()) {
		return ReduceSumAndKeep(x, axis)
	}
	part := func(from, to int) *graph.Node { return graph.SliceAxis(x, axis, graph.AxisRange(from, to)) }
	var odd []*graph.Node // what was left over where a half was not whole
	for n := x.Shape().Dim(axis); n > 1; n /= 2 {
		if n%2 == 1 {
			odd = append(odd, part(n-1, n))
		}
		x = graph.Add(part(0, n/2), part(n/2, n/2*2))
	}
	return SumInPairs(append(odd, x))
}

// MaxUses is how often XLA's CPU compiler evaluates one operation inside a fused loop. What is used
// more often is stored instead (FusionNodeIndexingEvaluation, kMaxCodeDuplication).
const MaxUses = 15

// SumSlices sums the entries from..to-1 of an axis of x, which goes away, slice by slice. Each
// slice uses x once, see [MaxUses].
func SumSlices(x *graph.Node, axis, from, to int) *graph.Node {
	d := append([]int{}, x.Shape().Dimensions...)
	d = append(d[:axis], d[axis+1:]...)
	var terms []*graph.Node
	for i := from; i < to; i++ {
		terms = append(terms, graph.Reshape(graph.SliceAxis(x, axis, graph.AxisElem(i)), d...))
	}
	return SumInPairs(terms)
}

// WholeLoops has XLA's CPU compiler keep a loop whole. The result of the loop goes through a
// select, which is not for YNN: its condition is always true, and XLA cannot know. The zero value
// is for other devices: it keeps nothing, and a sum is a reduction.
type WholeLoops struct{ always *graph.Node }

// NewWholeLoops makes it of a bool scalar that is true and that XLA cannot know. It belongs to the
// scalar's function.
func NewWholeLoops(always *graph.Node) WholeLoops { return WholeLoops{always} }

// Wanted reports whether loops are kept.
func (l WholeLoops) Wanted() bool { return l.always != nil }

// Keep returns x, and the loop that makes it stays whole.
func (l WholeLoops) Keep(x *graph.Node) *graph.Node {
	if !l.Wanted() {
		return x
	}
	return graph.Where(BroadcastToDims(l.always, x.Shape().Dimensions...), x, Zeros(x.Graph(), x.Shape()))
}

// SumAxis sums the entries from..to-1 of an axis of x, which goes away: slice by slice in one loop,
// or as a reduction where loops are not kept or slices are too many.
func (l WholeLoops) SumAxis(x *graph.Node, axis, from, to int) *graph.Node {
	if !l.Wanted() || to-from > MaxUses {
		return ReduceSum(graph.SliceAxis(x, axis, graph.AxisRange(from, to)), axis)
	}
	return SumSlices(x, axis, from, to)
}
