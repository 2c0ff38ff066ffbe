package gx

import (
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// All ways to sum give the sum, whatever the number of terms: here of 10^k, so that a term that is
// missing or doubled shows.
func TestSums(t *testing.T) {
	backend := testbackend.XLA(t)
	for n := 1; n <= 7; n++ {
		x, want := make([]float32, n), float32(0)
		for i, p := 0, float32(1); i < n; i, p = i+1, 10*p {
			x[i], want = p, want+p
		}
		exec := graph.MustNewExec(backend, func(x *graph.Node) []*graph.Node {
			var terms []*graph.Node
			for i := range n {
				terms = append(terms, graph.Reshape(graph.SliceAxis(x, 0, graph.AxisElem(i))))
			}
			always := GreaterOrEqualScalar(graph.Reshape(graph.SliceAxis(x, 0, graph.AxisElem(0))), 0)
			return []*graph.Node{SumInPairs(append([]*graph.Node{}, terms...)), SumInChains(terms), SumSlices(x, 0, 0, n),
				NewWholeLoops(always).Keep(ReduceSum(x, 0)), SumSlices(x, 0, n-1, n),
				NewWholeLoops(always).SumAxis(x, 0, 0, n), WholeLoops{}.SumAxis(x, 0, 0, n),
				graph.Reshape(SumHalvesAndKeep(x, 0)), graph.Reshape(SumHalvesAndKeep(graph.Reshape(x, 1, n), -1))}
		})
		wants := []float32{want, want, want, want, x[n-1], want, want, want, want}
		for i, out := range exec.MustCall(x) {
			if got := tensors.ToScalar[float32](out); got != wants[i] {
				t.Errorf("%d terms, way %d: %v, want %v", n, i, got, wants[i])
			}
		}
		exec.Finalize()
	}
}
