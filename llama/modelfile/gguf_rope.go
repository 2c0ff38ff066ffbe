package modelfile

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// ropeFactorsTensor is how GGUF files carry Llama-3's rotary scaling: a divisor for each of the D/2
// frequencies.
const ropeFactorsTensor = "rope_freqs.weight"

// ropeFactors takes the divisors as they are, as llama.cpp does. Its converter computes them with a
// first training's context of 8,192 tokens whatever the model's config.json says, so they cannot be
// checked against anything.
func (s *ggufSource) ropeFactors(c *Config) error {
	t, found := s.all[ropeFactorsTensor]
	if !found {
		return nil
	}
	if t.dtype != dtypes.Float32 || !slices.Equal(t.dims, []int{c.HeadDim / 2}) {
		return usererr.New("tensor %q is %s %v, want F32 [%d]", t.name, t.format, t.dims, c.HeadDim/2)
	}
	if c.RopeScaling.Type != "" {
		return usererr.New("tensor %q beside rotary scaling of type %q, want one of them", t.name, c.RopeScaling.Type)
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
	c.RopeScaling = RopeScaling{Type: ropeFactors, Factors: tensor.Value().([]float32)}
	return nil
}
