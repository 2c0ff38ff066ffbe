package llama

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// ropeFactorsTensor is how GGUF files carry Llama-3's rotary scaling: one divisor for each of the D/2 frequencies.
const ropeFactorsTensor = "rope_freqs.weight"

// Parameters of Llama-3's scaling that all its published models share; the factor differs (8 or 32).
const (
	llama3LowFreq   = 1
	llama3HighFreq  = 4
	llama3Positions = 8192
)

// ropeFactors turns the divisors back into the parameters they were computed from, and checks that these give the
// same divisors.
func (s *ggufSource) ropeFactors(c *Config) error {
	t, found := s.all[ropeFactorsTensor]
	if !found {
		return nil
	}
	if t.dtype != dtypes.Float32 || !slices.Equal(t.dims, []int{c.HeadDim / 2}) {
		return usererr.New("tensor %q is %s %v, want F32 [%d]", t.name, t.format, t.dims, c.HeadDim/2)
	}
	reader, err := gguf.NewReader(s.file)
	if err != nil {
		return err
	}
	defer reader.Close()
	tensor, err := reader.ReadTensor(nil, t.name)
	if err != nil {
		return err
	}
	divisors := tensor.Value().([]float32)
	if divisors[len(divisors)-1] == 1 && slices.Max(divisors) == 1 && slices.Min(divisors) == 1 {
		return nil
	}
	r := RopeScaling{Type: ropeLlama3, Factor: float64(slices.Max(divisors)),
		LowFreqFactor: llama3LowFreq, HighFreqFactor: llama3HighFreq, OriginalMaxPositions: llama3Positions}
	for i, got := range divisors {
		if want := r.divisor(c.RopeTheta, c.HeadDim, i); math.Abs(float64(got)-want) > 1e-3*want {
			return usererr.New("tensor %q: divisor %d is %g, want %g as Llama-3's scaling by %g gives", t.name, i, got, want, r.Factor)
		}
	}
	c.RopeScaling = r
	return nil
}

// divisor is what divides rotary frequency i, theta^(-2i/D), under a scaling.
func (r RopeScaling) divisor(theta float64, headDim, i int) float64 {
	frequency := math.Pow(theta, -2*float64(i)/float64(headDim))
	return frequency / r.stretch(frequency)
}
