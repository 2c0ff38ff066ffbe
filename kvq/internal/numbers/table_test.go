package numbers_test

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Every entry of the table says what it stores, and keeps ordinary numbers to within its range in
// every width that it accepts.
func TestEveryQuantizer(t *testing.T) {
	x := groupsForTest(16)[14:21] // all sizes
	names := numbers.Names()
	for _, q := range numbers.Quantizers {
		if numbers.ByName(q.Name) != q || slices.Index(names, q.Name) < 0 {
			t.Errorf("%q is not found by its name", q.Name)
		}
		var specs []numbers.Spec
		for _, bits := range allBits {
			for _, format := range []numbers.ScaleFormat{numbers.ScaleFloat32, numbers.Scale8} {
				if s := (numbers.Spec{Quantizer: q, Bits: bits, Scales: format}); q.Check == nil || q.Check(s) == nil {
					specs = append(specs, s)
				}
			}
		}
		got := evaluate(t, func(xs []*Node) (out []*Node) {
			for _, s := range specs {
				codes, scales, zeros := s.Encode(xs[0], 1, nil)
				if (zeros != nil) != q.Zeros || !q.Packed() && codes.DType() != q.Element {
					t.Errorf("%s stores zero points: %v, codes as %s", q.Name, zeros != nil, codes.DType())
				}
				out = append(out, decoded(s, codes, scales, zeros))
			}
			return out
		}, x)
		for n, s := range specs {
			for i, group := range x {
				reach := 2.1 * largestOf(group)
				for j, v := range group {
					if e := math.Abs(float64(got[n][i*16+j] - v)); !(e <= reach) {
						t.Errorf("%s, %d bits, %s: %v came back as %v", q.Name, s.Bits, s.Scales, v, got[n][i*16+j])
					}
				}
			}
		}
	}
	if numbers.ByName("nearest") != nil {
		t.Error(`a quantizer "nearest" was found`)
	}
}
