package modelfile

import (
	"math"
	"testing"
)

func TestRotaryFrequencies(t *testing.T) {
	near := func(got float32, want float64) bool { return math.Abs(float64(got)-want) <= 1e-6*want }
	// 10000^(-0/4) = 1 and 10000^(-2/4) = 0.01.
	plain := Config{HeadDim: 4, RopeTheta: 10000}.RotaryFrequencies()
	if len(plain) != 2 || !near(plain[0], 1) || !near(plain[1], 0.01) {
		t.Errorf("plain: %v, want [1 0.01]", plain)
	}
	linear := Config{HeadDim: 4, RopeTheta: 10000, RopeScaling: RopeScaling{Type: ropeLinear, Factor: 4}}.RotaryFrequencies()
	if !near(linear[0], 0.25) || !near(linear[1], 0.0025) {
		t.Errorf("linear by 4: %v, want [0.25 0.0025]", linear)
	}
	// Llama-3.1's own numbers, by _compute_llama3_parameters of transformers:
	//   i = 0:  wave length 6.28, below 8192/4: as it is.
	//   i = 30: f = 500000^(-60/128) = 0.00213112, wave length 2948.3, between 8192/4 and 8192/1:
	//           smooth = (8192/2948.303 - 1)/3 = 0.592849, (1-smooth)·f/8 + smooth·f = 0.00137189356776
	//   i = 63: wave length 2.6 million, above 8192: divided by 8.
	llama3 := Config{HeadDim: 128, RopeTheta: 500000, RopeScaling: RopeScaling{
		Type: ropeLlama3, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositions: 8192,
	}}.RotaryFrequencies()
	for i, want := range map[int]float64{0: 1, 30: 0.00137189356776, 63: math.Pow(500000, -126.0/128) / 8} {
		if !near(llama3[i], want) {
			t.Errorf("llama3: frequency %d is %g, want %g", i, llama3[i], want)
		}
	}
}
