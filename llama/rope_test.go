package llama

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// A pair (x, y) at position p rotates by p times its frequency.
func TestRotationTurnsPairs(t *testing.T) {
	frequencies := []float32{1, 0.5}
	got := MustExecOnce(testbackend.XLA(t), func(x, positions *Node) *Node {
		return newRotation(positions, frequencies).apply(x)
	}, [][][][][]float32{{{{{1, 2, 3, 4}}}, {{{1, 2, 3, 4}}}}}, [][]int32{{0, 3}}).Value().([][][][][]float32)
	want := [][]float32{{1, 2, 3, 4}, make([]float32, 4)}
	for i, f := range frequencies {
		sin, cos := math.Sincos(3 * float64(f))
		x, y := float64(i+1), float64(i+3)
		want[1][i], want[1][i+2] = float32(x*cos-y*sin), float32(y*cos+x*sin)
	}
	for p := range want {
		if d := worst(t, got[0][p][0][0], want[p]); d > 1e-6 {
			t.Errorf("position %d: %v, want %v", []int{0, 3}[p], got[0][p][0][0], want[p])
		}
	}
}
