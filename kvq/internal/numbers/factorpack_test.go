package numbers_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// A factor of 3 channels. Column 0 has 0.875 and -0.3: sevenths of 0.875 are 0.125, and -0.3 is
// -2.4 of them, so -2. Column 1 has 0.05, which float8 keeps as 0.05078125 (13/16 of 2^-4), so 7
// sevenths of that.
//
//	line 0: row 2 from the left: 8-2 = 6, 8+7 = 15, then its own place 8
//	line 1: row 1 from the left: 8+7 = 15, its own place 8, and row 1 from the right: 15
//	a byte holds a place of line 0 and of line 1: 0xf6 0x8f 0xf8
//	float8:  0.875 = 1.75·2^-1 = 0x36, 0.05078125 = 1.625·2^-5 = 0x15, 0
func TestPackFactorByHand(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		packed := numbers.PackFactor(Reshape(xs[0], 1, 1, 3, 3))
		if want := numbers.PackedFactor(3, 1, 1); !packed.Shape().Equal(want) {
			t.Errorf("packed to %s, wanted %s", packed.Shape(), want)
		}
		return []*Node{packed, numbers.UnpackFactor(packed)}
	}, [][]float32{{0, 0, 0}, {0.875, 0, 0}, {-0.3, 0.05, 0}})
	requireSame(t, "packed", []float32{0xf6, 0x8f, 0xf8, 0x36, 0x15, 0}, got[0])
	requireSame(t, "unpacked", []float32{0, 0, 0, 0.875, 0, 0, -0.25, 0.05078125, 0}, got[1])
}

// Whatever the number of channels, an element comes back to a fourteenth of the largest in its
// column, and a sixteenth of itself for the float8 of that; sevenths of a float8 come back as they
// were. What is not below the diagonal is 0.
func TestPackFactor(t *testing.T) {
	for _, dim := range []int{1, 2, 3, 5, 8, 18} {
		exact, any := make([]float32, 2*dim*dim), make([]float32, 2*dim*dim)
		for i := range exact {
			head, row, column := i/dim/dim, i/dim%dim, i%dim
			if column >= row {
				continue
			}
			scale := math.Ldexp(0.875, column%5-3)
			any[i] = float32(scale * math.Sin(float64(7*i+head)))
			exact[i] = float32(scale / 7 * float64(i%15-7))
			if row == dim-1 { // a column has its largest
				exact[i] = float32(scale)
			}
		}
		got := evaluate(t, func(xs []*Node) []*Node {
			var out []*Node
			for _, x := range xs {
				packed := numbers.PackFactor(Reshape(x, 1, 2, dim, dim))
				if want := numbers.PackedFactor(dim, 1, 2); !packed.Shape().Equal(want) || want.Dim(2) != ((dim+1)/2+1)/2+1 || want.DType != dtypes.Uint8 {
					t.Errorf("%d channels are packed to %s, wanted %s: 4 bits an element of half the square, and a line", dim, packed.Shape(), want)
				}
				out = append(out, numbers.UnpackFactor(packed))
			}
			return out
		}, exact, any)
		requireSame(t, fmt.Sprintf("%d channels", dim), exact, got[0])
		for i, want := range any {
			head, column, largest := i/dim/dim, i%dim, 0.0
			for row := range dim {
				largest = max(largest, math.Abs(float64(any[(head*dim+row)*dim+column])))
			}
			if math.Abs(float64(got[1][i]-want)) > largest/14*1.07+math.Abs(float64(want))/16 {
				t.Errorf("%d channels: element %d was %v and became %v, the largest of its column is %v", dim, i, want, got[1][i], largest)
			}
		}
	}
}

// An array of nothing, as an empty cache has it, feeds nothing back, and an element beyond float8
// is cut there.
func TestPackFactorOfOddNumbers(t *testing.T) {
	got := evaluate(t, func(xs []*Node) []*Node {
		empty := ConvertDType(xs[0], dtypes.Uint8)
		return []*Node{
			numbers.UnpackFactor(Reshape(empty, 1, 1, 3, 5)),
			numbers.UnpackFactor(numbers.PackFactor(Reshape(xs[1], 1, 1, 2, 2))),
		}
	}, make([]float32, 15), []float32{0, 0, -1e9, 0})
	requireSame(t, "of nothing", make([]float32, 25), got[0])
	requireSame(t, "beyond float8", []float32{0, 0, -448, 0}, got[1])
}
