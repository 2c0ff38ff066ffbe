package rotary_test

import (
	"math"
	"math/rand/v2"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/rotary"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// The metric is the mean of those of the queries turned by 0 to n-1 positions, which the host turns
// and adds up one after the other. A frequency of 0 turns nothing, one of 2π as little.
func TestMean(t *testing.T) {
	const heads, dim, tokens, n = 2, 8, 5, 37
	frequencies := []float32{1, 0.3, 0, float32(2 * math.Pi)}
	rng := rand.New(rand.NewPCG(3, 4))
	metric, want := make([]float32, heads*dim*dim), make([]float64, heads*dim*dim)
	for head := range heads {
		for range tokens {
			q := make([]float64, dim)
			for i := range q {
				q[i] = rng.NormFloat64() + float64(i)
			}
			for o := range n {
				turned := make([]float64, dim)
				for i, f := range frequencies {
					sin, cos := math.Sincos(float64(o) * float64(f))
					x, y := q[i], q[i+dim/2]
					turned[i], turned[i+dim/2] = x*cos-y*sin, y*cos+x*sin
				}
				for i := range dim * dim {
					want[head*dim*dim+i] += turned[i/dim] * turned[i%dim] / n
				}
			}
			for i := range dim * dim {
				metric[head*dim*dim+i] += float32(q[i/dim] * q[i%dim])
			}
		}
	}
	got := tensors.MustCopyFlatData[float32](MustExecOnce(testbackend.XLA(t), func(m *Node) *Node { return rotary.Mean(m, frequencies, n) },
		tensors.FromFlatDataAndDimensions(metric, 1, heads, dim, dim)))
	for i, w := range want {
		if math.Abs(float64(got[i])-w) > 1e-3 {
			t.Errorf("element %d %d of head %d: %v, want %v", i/dim%dim, i%dim, i/dim/dim, got[i], w)
		}
	}
}
