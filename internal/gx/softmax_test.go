package gx_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

func TestSoftmax(t *testing.T) {
	inf := float32(math.Inf(-1))
	for name, backend := range map[string]compute.Backend{"go": testbackend.Go(t), "xla": testbackend.XLA(t)} {
		t.Run(name, func(t *testing.T) {
			logits := [][]float32{{1, 2, 3}, {1000, 1000, -1000}, {5, 6, 7}}
			keep := [][]bool{{true, true, false}, {true, true, true}, {false, false, false}}
			add := [][]float32{{0, 0, inf}, {0, 0, 0}, {inf, inf, inf}}
			// Row 0: exp(1-2) : 1 = 0.36788 : 1 -> 0.26894, 0.73106. Row 2: everything masked,
			// weights of 0.
			want := [][]float32{{0.26894143, 0.7310586, 0}, {0.5, 0.5, 0}, {0, 0, 0}}
			for _, mask := range []any{keep, add} {
				got := MustNewExec(backend, gx.Softmax).MustExec1(logits, mask)
				requireNear(t, want, got.Value().([][]float32), 1e-7)
			}
			got := MustNewExec(backend, func(x *Node) *Node { return gx.Softmax(x, nil) }).MustExec1([][]float32{{0, 0}})
			requireNear(t, [][]float32{{0.5, 0.5}}, got.Value().([][]float32), 0)
		})
	}
}

// A sum of 4096 equal weights stops growing at 256 when it is kept in bfloat16.
func TestSoftmaxAccumulatesInFloat32(t *testing.T) {
	exec := MustNewExec(testbackend.XLA(t), func(x *Node) *Node {
		return ConvertDType(gx.Softmax(ConvertDType(x, dtypes.BFloat16), nil), dtypes.Float32)
	})
	got := exec.MustExec1([][]float32{make([]float32, 4096)}).Value().([][]float32)
	requireNear(t, [][]float32{{1.0 / 4096}}, [][]float32{got[0][:1]}, 0)
}

func requireNear(t *testing.T, want, got [][]float32, tolerance float64) {
	t.Helper()
	for i := range want {
		for j := range want[i] {
			if d := math.Abs(float64(want[i][j] - got[i][j])); !(d <= tolerance) {
				t.Errorf("[%d][%d]: %v, wanted %v within %v", i, j, got[i][j], want[i][j], tolerance)
			}
		}
	}
}
