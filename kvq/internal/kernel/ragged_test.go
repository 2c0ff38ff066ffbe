package kernel

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// Rows of their own lengths, each with a position of its own; and a row that rests, position -1,
// which sees nothing: the other row is as without it, and what it gets itself is finite.
func TestKernelOfRaggedRows(t *testing.T) {
	c := scoredCases()[0]
	var before parts
	for _, second := range []int32{50, -1} {
		x := newKernelTest(t, c)
		x.state[0] = []int32{110, second}
		out := x.call(t, testbackend.XLA(t), func(in Inputs) []*Node {
			sum := x.k.graph(in, attend.Tiles)
			return append([]*Node{sum.Max, sum.Sum, sum.Out}, x.k.nodes(in)...)
		})
		x.k.splits = 3
		got, want := x.k.runOnHost(out[3:]), hostParts(out[:3])
		if second >= 0 {
			requireParts(t, "positions of their own", 1e-5, got, want)
			before = got.row(0)
			continue
		}
		requireParts(t, "beside a row that rests", 1e-5, got.row(0), want.row(0))
		requireParts(t, "with another row's rest", 0, got.row(0), before)
		for i, sum := range got.row(1).sum {
			if value := float64(got.row(1).out[i*c.dim] / sum); math.IsNaN(value) || math.IsInf(value, 0) {
				t.Errorf("query %d of the row that rests gets %v", i, value)
			}
		}
	}
}

// row is one of two rows.
func (p parts) row(i int) parts {
	half := func(x []float32) []float32 { return x[i*len(x)/2 : (i+1)*len(x)/2] }
	return parts{half(p.max), half(p.sum), half(p.out)}
}
