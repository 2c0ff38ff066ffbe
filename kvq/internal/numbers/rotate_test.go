package numbers_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// By hand for 4: H = 1/2 · [1 1 1 1; 1 -1 1 -1; 1 1 -1 -1; 1 -1 -1 1].
func TestHadamardByHand(t *testing.T) {
	want := [][]float32{{.5, .5, .5, .5}, {.5, -.5, .5, -.5}, {.5, .5, -.5, -.5}, {.5, -.5, -.5, .5}}
	for i, row := range numbers.Hadamard(4) {
		if !slices.Equal(row, want[i]) {
			t.Errorf("row %d: %v, wanted %v", i, row, want[i])
		}
	}
}

func TestHadamardIsSymmetricAndOrthonormal(t *testing.T) {
	for _, dim := range []int{1, 2, 64, 80, 96, 128, 256} {
		h := numbers.Hadamard(dim)
		for i := range h {
			for j := range h {
				dot, want := 0.0, 0.0
				for k := range h {
					dot += float64(h[i][k]) * float64(h[k][j])
				}
				if i == j {
					want = 1
				}
				if math.Abs(dot-want) > 1e-6 || h[i][j] != h[j][i] {
					t.Fatalf("D=%d: H·H[%d][%d] = %v, H[i][j] = %v, H[j][i] = %v", dim, i, j, dot, h[i][j], h[j][i])
				}
			}
		}
	}
}

// Rotate is x·H, its own inverse, and leaves dot products of queries and keys as they are.
func TestRotate(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, dim := range []int{16, 64, 80, 96, 128, 256} {
		t.Run(fmt.Sprint(dim), func(t *testing.T) {
			const rows = 6
			q, k := make([]float32, rows*dim), make([]float32, rows*dim)
			for i := range q {
				q[i], k[i] = float32(random.NormFloat64()), float32(random.NormFloat64())
			}
			got := evaluate(t, func(xs []*Node) []*Node {
				q, k := xs[0], xs[1]
				half := numbers.Rotate(ConvertDType(q, dtypes.BFloat16))
				if half.DType() != dtypes.BFloat16 {
					t.Errorf("bfloat16 became %s", half.DType())
				}
				return []*Node{numbers.Rotate(q), numbers.Rotate(numbers.Rotate(q)), gx.ReduceSum(Mul(q, k), -1), gx.ReduceSum(Mul(numbers.Rotate(q), numbers.Rotate(k)), -1), half}
			}, tensors.FromFlatDataAndDimensions(q, 2, 3, 1, dim), tensors.FromFlatDataAndDimensions(k, 2, 3, 1, dim))
			h := numbers.Hadamard(dim)
			for i := range q {
				want := 0.0
				for j := range dim {
					want += float64(q[i/dim*dim+j]) * float64(h[j][i%dim])
				}
				if math.Abs(want-float64(got[0][i])) > 2e-6 || math.Abs(float64(got[1][i]-q[i])) > 2e-6 {
					t.Fatalf("element %d: rotated %v, wanted %v; rotated twice %v, wanted %v", i, got[0][i], want, got[1][i], q[i])
				}
				if math.Abs(want-float64(got[4][i])) > 0.02*max(1, math.Abs(want)) {
					t.Fatalf("element %d in bfloat16: %v, wanted %v", i, got[4][i], want)
				}
			}
			for i := range got[2] {
				if math.Abs(float64(got[2][i]-got[3][i])) > 5e-5 {
					t.Errorf("q·k = %v, rotated %v", got[2][i], got[3][i])
				}
			}
		})
	}
}

// One outlier is spread over its whole block: 30 in one of 64 channels becomes 30/8 in each.
func TestRotateSpreadsAnOutlier(t *testing.T) {
	x := make([]float32, 64)
	x[17] = 30
	got := evaluate(t, func(xs []*Node) []*Node { return []*Node{Abs(numbers.Rotate(xs[0]))} }, [][]float32{x})
	if low, high := slices.Min(got[0]), slices.Max(got[0]); low != 3.75 || high != 3.75 {
		t.Errorf("magnitudes %v to %v, wanted 3.75", low, high)
	}
}
