package modelfile

import "math"

// RotaryFrequencies returns by how many radians each rotary pair rotates from one position to the
// next: D/2 values, computed in float64 and rounded to float32.
//
//	f[i] = theta^(-2i/D), stretched as RopeScaling says
//
// Source: Su et al. 2021, "RoFormer", section 3.2.2; scaling as in transformers'
// modeling_rope_utils.py.
func (c Config) RotaryFrequencies() []float32 {
	out := make([]float32, c.HeadDim/2)
	for i := range out {
		out[i] = float32(c.RopeScaling.stretch(i, math.Pow(c.RopeTheta, -2*float64(i)/float64(c.HeadDim))))
	}
	return out
}

// stretch slows frequency i down for contexts longer than those of the first training.
func (r RopeScaling) stretch(i int, frequency float64) float64 {
	switch r.Type {
	case ropeFactors:
		return frequency / float64(r.Factors[i])
	case ropeLinear:
		return frequency / r.Factor
	case ropeLlama3:
		// share is 1 for waves so short that the first training saw many of them (left alone), 0
		// for waves longer than it saw (stretched fully), and in between a blend.
		waves := float64(r.OriginalMaxPositions) * frequency / (2 * math.Pi) // in the first training's context
		share := (waves - r.LowFreqFactor) / (r.HighFreqFactor - r.LowFreqFactor)
		share = min(max(share, 0), 1)
		return share*frequency + (1-share)*frequency/r.Factor
	}
	return frequency
}
