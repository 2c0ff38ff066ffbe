package cli

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Bits are what a coded value takes in a cache, scales and zero points included.
type Bits struct {
	// with scales of 16 bits where the configuration does not say, as on a GPU: the one number that
	// a cache has wherever it runs. Of full precision it is Here
	Named float64
	Here  float64 // in this dtype
	// Named, and what a row keeps of its prompt, spread over RowTokens
	InRow float64
}

// RowTokens is how many tokens share what a row keeps of its prompt's queries, wherever it is
// counted in bits a value.
const RowTokens = 2048

// BitsOf returns those of a cache for a model that computes in dtype.
func BitsOf(config kvq.Config, model llama.Config, dtype dtypes.DType) (Bits, error) {
	plan, err := PlanFor(config, model, 1, 1, dtype)
	if err != nil {
		return Bits{}, err
	}
	b := Bits{plan.BitsPerValue(), plan.BitsPerValue(), plan.BitsPerValueIn(RowTokens)}
	if !config.Quantized() {
		return b, nil
	}
	if plan, err = PlanFor(config, model, 1, 1, dtypes.Float16); err != nil {
		return Bits{}, err
	}
	b.Named, b.InRow = plan.BitsPerValue(), plan.BitsPerValueIn(RowTokens)
	return b, nil
}

// String is the one number, without needless digits.
func (b Bits) String() string { return fmt.Sprintf("%.4g", b.Named) }

// Note says how many bits the cache of that name takes instead, where these are not the same; ""
// where they are.
func (b Bits) Note(name string) string {
	if b.Named == b.Here {
		return ""
	}
	return fmt.Sprintf("%s: %.4g bits a value with 16-bit scales, %.4g here, where scales have more bits", name, b.Named, b.Here)
}
