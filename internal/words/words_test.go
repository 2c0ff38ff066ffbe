package words_test

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/words"
)

// sample is a word in which all fields differ, the top bit is set, and so are the bits of
// neighbours.
const sample = 0xfedc8765

// Masked fields times their factors are the codes, for every width.
func TestNumbersTimesFactorsAreTheCodes(t *testing.T) {
	backend := testbackend.XLA(t)
	for _, width := range []int{1, 2, 4, 8} {
		f := words.Fields{Word: 32, Width: width}
		exec := MustNewExec(backend, func(x *Node) []*Node { return f.Numbers(x) })
		out := exec.MustCall([]uint32{sample, 0, math.MaxUint32})
		exec.Finalize()
		if len(out) != f.Count() {
			t.Fatalf("width %d: %d numbers, want %d", width, len(out), f.Count())
		}
		for k, x := range out {
			numbers := tensors.MustCopyFlatData[float32](x)
			for i, word := range []uint32{sample, 0, math.MaxUint32} {
				code := float32(word >> (k * width) & (1<<width - 1))
				if got := numbers[i] * f.Integer(k).Factor(0); got != code {
					t.Errorf("width %d, field %d of %#x: %v, want %v", width, k, word, got, code)
				}
			}
		}
	}
}

// A masked word's bits as those of a float32 are the code at its place, never an exponent beyond
// it.
func TestFloatBitsAreTheCodes(t *testing.T) {
	for _, width := range []int{1, 2, 4, 8} {
		f := words.Fields{Word: 32, Width: width}
		for k := range f.Count() {
			place := f.Float(k)
			masked := uint32(sample) >> place.Down & uint32(f.Mask(place))
			got := math.Ldexp(float64(math.Float32frombits(masked)), words.FloatBias-place.At)
			if want := float64(uint32(sample) >> (k * width) & (1<<width - 1)); got != want {
				t.Errorf("width %d, field %d: %v, want %v", width, k, got, want)
			}
		}
	}
}

// A plane that begins at bit low of its codes counts 2^low.
func TestFactorOfAPlane(t *testing.T) {
	f := words.Fields{Word: 32, Width: 4}
	for _, c := range []struct {
		field, low int
		want       float32
	}{{0, 0, 1}, {1, 0, 1. / 16}, {1, 4, 1}, {7, 0, 0x1p-24}} { // the last is shifted from bit 28 to 24
		if got := f.Integer(c.field).Factor(c.low); got != c.want {
			t.Errorf("field %d, low %d: %v, want %v", c.field, c.low, got, c.want)
		}
	}
}
