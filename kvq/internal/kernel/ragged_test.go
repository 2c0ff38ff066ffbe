package kernel

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// Rows of their own lengths, each with a position of its own; and a row that rests, position -1,
// which sees nothing: the other row is as without it, and what it gets itself is finite.
func TestKernelOfRaggedRows(t *testing.T) {
	c := scoredCases()[0]
	before := map[bool]parts{} // by form: by tensor units, or not
	for _, second := range []int32{50, -1} {
		x := newKernelTest(t, c)
		x.state[0] = []int32{110, second}
		out := x.call(t, testbackend.XLA(t), func(in Inputs) []*Node {
			sum := x.k.graph(in, attend.Tiles)
			return append([]*Node{sum.Max, sum.Sum, sum.Out}, x.k.nodes(in)...)
		})
		for _, k := range []Attention{x.k, x.k.byMultiplyAdds()} {
			k.splits = 3
			got, want := k.runOnHost(out[3:], ptx.Late), hostParts(out[:3])
			if second >= 0 {
				requireParts(t, "positions of their own", k.tolerance(), got, want)
				before[k.units] = got.row(0)
				continue
			}
			requireParts(t, "beside a row that rests", k.tolerance(), got.row(0), want.row(0))
			requireParts(t, "with another row's rest", 0, got.row(0), before[k.units])
			for i, sum := range got.row(1).sum {
				if value := float64(got.row(1).out[i*c.dim] / sum); math.IsNaN(value) || math.IsInf(value, 0) {
					t.Errorf("query %d of the row that rests gets %v", i, value)
				}
			}
		}
	}
	if len(before) != 2 {
		t.Error("the case has one form alone")
	}
}

// row is one of two rows.
func (p parts) row(i int) parts {
	half := func(x []float32) []float32 { return x[i*len(x)/2 : (i+1)*len(x)/2] }
	return parts{half(p.max), half(p.sum), half(p.out)}
}
