package llama

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

func TestRMSNorm(t *testing.T) {
	backend := testbackend.XLA(t)
	norm := func(x, w *Node) *Node { return rmsNorm(x, w, 1e-5) }
	// mean of squares of (3, 4): 12.5; 3/sqrt(12.50001) = 0.848528, 4/… = 1.131370. A vector of
	// zeros stays zero.
	got := MustExecOnce(backend, norm, [][]float32{{3, 4}, {0, 0}}, []float32{1, 10}).Value().([][]float32)
	if d := worst(t, append(got[0], got[1]...), []float32{0.848528, 11.31370, 0, 0}); d > 1e-5 {
		t.Errorf("got %v", got)
	}
	// Squares of 300 overflow float16, but the division is done in float32.
	half := MustExecOnce(backend, func(x, w *Node) *Node {
		return ConvertDType(norm(ConvertDType(x, dtypes.Float16), ConvertDType(w, dtypes.Float16)), dtypes.Float32)
	}, [][]float32{{300, -300}}, []float32{1, 1}).Value().([][]float32)
	if d := worst(t, half[0], []float32{1, -1}); math.IsNaN(d) || d > 1e-3 {
		t.Errorf("float16: got %v, want [1 -1]", half[0])
	}
}
