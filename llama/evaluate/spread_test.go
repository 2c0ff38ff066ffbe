package evaluate

import (
	"math"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 || math.IsNaN(a) && math.IsNaN(b) }

func TestSpreadByHand(t *testing.T) {
	s := Scores{NLL: []float32{1, 2, 3, 4}, KL: []float32{4, 1, 3, 2}}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 0.9: 3.7, 1: 4} {
		if got := s.KLQuantile(q); !near(got, want) {
			t.Errorf("quantile %g is %g, want %g", q, got, want)
		}
	}
	// 1, 2, 3, 4: variance 5/3, its mean's error sqrt(5/12)
	if got := s.KLError(); !near(got, math.Sqrt(5.0/12)) {
		t.Errorf("error %g", got)
	}
	ratio, err := s.PerplexityRatio(Scores{NLL: []float32{1, 1, 3, 3}})
	// differences 0, 1, 0, 1: mean 1/2, variance 1/3
	if want := math.Exp(0.5); !near(ratio, want) || !near(err, want*math.Sqrt(1.0/12)) {
		t.Errorf("ratio %g ± %g", ratio, err)
	}
	for _, x := range []float64{Scores{}.KLQuantile(0.5), Scores{}.KLError(), Scores{KL: []float32{1}}.KLError()} {
		if !math.IsNaN(x) {
			t.Errorf("%g of too few tokens, want NaN", x)
		}
	}
	if ratio, _ := s.PerplexityRatio(Scores{}); !math.IsNaN(ratio) {
		t.Errorf("ratio %g of different tokens", ratio)
	}
}
