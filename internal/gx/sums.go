package gx

import (
	"github.com/gomlx/gomlx/core/graph"
)

// The sums of this file are written so that XLA's CPU compiler makes one vectorized loop over the
// last axis of each. It does not vectorize a reduction over another axis, and hands sums and
// products of whole arrays to its library YNN, for which it splits loops (jaxlib 0.11.2, seen in
// its dumps).

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

// SumSlices sums the entries from..to-1 of an axis of x, which goes away, slice by slice. Each
// slice uses x once. With more than some 15 uses, XLA stores x instead of fusing it
// (FusionNodeIndexingEvaluation, kMaxCodeDuplication).
func SumSlices(x *graph.Node, axis, from, to int) *graph.Node {
	d := append([]int{}, x.Shape().Dimensions...)
	d = append(d[:axis], d[axis+1:]...)
	var terms []*graph.Node
	for i := from; i < to; i++ {
		terms = append(terms, graph.Reshape(graph.SliceAxis(x, axis, graph.AxisElem(i)), d...))
	}
	return SumInPairs(terms)
}

// KeepLoop returns x. always is a bool scalar that is true, which XLA cannot know. YNN has no
// select, so the loop that makes x stays whole.
func KeepLoop(always, x *graph.Node) *graph.Node {
	return graph.Where(BroadcastToDims(always, x.Shape().Dimensions...), x, Zeros(x.Graph(), x.Shape()))
}
