package judge

import (
	"math"
	"slices"
	"testing"
)

// The values of R's binom.confint(method = "wilson"), and symmetry.
func TestWilsonByKnownValues(t *testing.T) {
	for _, c := range []struct {
		right, n  int
		low, high float64
	}{{8, 10, 0.490162, 0.943318}, {0, 10, 0, 0.277533}, {10, 10, 0.722467, 1}, {50, 100, 0.403832, 0.596168}, {1, 1, 0.206549, 1}, {0, 0, 0, 1}} {
		low, high := Wilson(c.right, c.n)
		if math.Abs(low-c.low) > 1e-6 || math.Abs(high-c.high) > 1e-6 {
			t.Errorf("%d of %d: %.6f to %.6f, want %.6f to %.6f", c.right, c.n, low, high, c.low, c.high)
		}
		if l, h := Wilson(c.n-c.right, c.n); math.Abs(1-l-high) > 1e-12 || math.Abs(1-h-low) > 1e-12 {
			t.Errorf("%d of %d is not the mirror of %d of %d", c.n-c.right, c.n, c.right, c.n)
		}
	}
}

// 1, 2, 3, 6: mean 3, squares 4+1+0+9 = 14, variance 14/3, standard error √(14/3/4) = √(7/6).
func TestMeanByHand(t *testing.T) {
	if m, e := Mean([]float64{1, 2, 3, 6}); m != 3 || math.Abs(e-math.Sqrt(7.0/6)) > 1e-15 {
		t.Errorf("%g ± %g, want 3 ± %g", m, e, math.Sqrt(7.0/6))
	}
	if m, e := Mean([]float64{4}); m != 4 || !math.IsNaN(e) {
		t.Errorf("one value: %g ± %g", m, e)
	}
	if m, e := Mean(nil); !math.IsNaN(m) || !math.IsNaN(e) {
		t.Errorf("no value: %g ± %g", m, e)
	}
}

func TestStretchesByHand(t *testing.T) {
	for _, c := range []struct {
		values []float32
		want   []float64
	}{{[]float32{1, 3, 5, 7, 100}, []float64{2, 6}}, {[]float32{1, 3}, []float64{2}}, {[]float32{4}, []float64{4}}, {nil, nil}} {
		if got := Stretches(c.values, 2); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
}
