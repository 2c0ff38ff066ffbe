package numbers

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// metrics are heads matrices [dim, dim] of queries that share few directions, damped.
func metrics(heads, dim int) []float32 {
	rng := rand.New(rand.NewPCG(3, uint64(dim)))
	out := make([]float32, heads*dim*dim)
	for head := range heads {
		m := out[head*dim*dim:][:dim*dim]
		for range 1 + dim/4 {
			direction := make([]float64, dim)
			for i := range direction {
				direction[i] = rng.NormFloat64()
			}
			for i := range m {
				m[i] += float32(direction[i/dim] * direction[i%dim] / (1 + float64(dim)/4))
			}
		}
		for i := range dim {
			m[i*dim+i] += 0.3
		}
	}
	return out
}

func factorByGraph(t *testing.T, backend compute.Backend, m []float32, heads, dim int, byKernel bool) []float32 {
	t.Helper()
	exec := MustNewExec(backend, func(m *Node) *Node {
		if byKernel {
			if !factorTaken(m.Graph(), dim) {
				t.Error("the kernel does not run here")
			}
			return factorByKernel(m)
		}
		return factorByLoop(m)
	})
	defer exec.Finalize()
	return tensors.MustCopyFlatData[float32](exec.MustCall(tensors.FromFlatDataAndDimensions(m, 1, heads, dim, dim))[0])
}

// requireFactor compares what is below the diagonal.
func requireFactor(t *testing.T, got, want []float32, dim int) {
	t.Helper()
	for i, w := range want {
		if row, column := i/dim%dim, i%dim; column < row && !(math.Abs(float64(got[i]-w)) <= 2e-5) {
			t.Fatalf("row %d, column %d: %v, wanted %v", row, column, got[i], w)
		}
	}
}

var factorCases = []struct{ heads, dim int }{{2, 64}, {1, 20}, {3, 1}, {2, 48}, {1, 128}}

// The kernel, executed on the host, finds the factor that graph operations find.
func TestFactorKernel(t *testing.T) {
	for _, c := range factorCases {
		t.Run(fmt.Sprint(c.dim), func(t *testing.T) {
			if c.dim > 64 {
				testlane.OnlyAll(t, "a kernel takes its time on the host; smaller matrices are tested")
			}
			m, block := metrics(c.heads, c.dim), wholeBlock(c.dim)
			want := factorByGraph(t, testbackend.XLA(t), m, c.heads, c.dim, false)
			out := make([]float32, c.heads*block*block)
			factorKernel(c.dim).Run([3]int{c.heads, 1, 1}, ttir.Memory{m, out})
			var got []float32
			for row := range c.heads * block {
				if row%block < c.dim {
					got = append(got, out[row*block:][:c.dim]...)
				}
			}
			requireFactor(t, got, want, c.dim)
			if panelsTake(c.dim) {
				got := make([]float32, len(m))
				factorByPanels(c.dim).Run([2]int{c.heads, 1}, ptx.Memory{m, got}, ptx.Late)
				requireFactor(t, got, want, c.dim)
			}
		})
	}
}

// And so it does on a GPU.
func TestFactorKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range append(factorCases, struct{ heads, dim int }{2, 256}) {
		t.Run(fmt.Sprint(c.dim), func(t *testing.T) {
			m := metrics(c.heads, c.dim)
			requireFactor(t, factorByGraph(t, backend, m, c.heads, c.dim, true), factorByGraph(t, backend, m, c.heads, c.dim, false), c.dim)
		})
	}
}
