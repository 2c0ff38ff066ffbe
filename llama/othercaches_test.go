package llama

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// The tutorial's prompts with 2 bits and a window that is flushed twice on the way, and with hqq:
// the same 20 tokens, and likely tokens of the second step, the first that sees codes, a tenth as
// far from transformers' as these are from full precision. A value on the edge between two codes
// falls to either, and the coarser the codes, the more that is.
func TestTutorialPromptsWithOtherCachesMatchTransformers(t *testing.T) {
	testlane.Slow(t, "the small model with two more caches")
	testbackend.XLA(t)
	p := readPrompts(t)
	m := mustLoad(t, smallModel(t), LoadOptions{DType: dtypes.Float32, RoundFloat16: true})
	defer m.Finalize()
	for _, c := range []struct {
		variant string
		config  kvq.Config
		within  float64
	}{
		{"quanto_b2_g32_r8", kvq.Config{Backend: kvq.Quanto, NBits: 2, QGroupSize: 32, ResidualLength: 8}, 1.1},
		{"hqq_b4_g32_r64_ax1", kvq.Config{Backend: kvq.HQQ, NBits: 4, QGroupSize: 32, ResidualLength: 64, AxisKey: 1, AxisValue: 1}, 0.21},
	} {
		t.Run(c.variant, func(t *testing.T) {
			want := p.Variants[c.variant]
			r, err := mustGenerator(t, m, c.config).Generate(context.Background(), tokenizer.Batch{IDs: p.IDs, Mask: p.Mask}, GenerateConfig{MaxNewTokens: 20, MinNewTokens: 20, KeepLogits: true})
			if err != nil {
				t.Fatal(err)
			}
			far := 0.0
			for row := range want.Generated {
				if !slices.Equal(r.Tokens[row], want.Generated[row]) {
					t.Errorf("row %d: %v, want %v", row, r.Tokens[row], want.Generated[row])
				}
				for i, id := range want.Steps[1].IDs[row] {
					far = max(far, math.Abs(float64(r.Logits[1][row][id]-want.Steps[1].Logits[row][i])))
				}
			}
			if t.Logf("second logits of likely tokens differ by up to %g", far); far > c.within {
				t.Errorf("second logits differ by up to %g, want at most %g", far, c.within)
			}
		})
	}
}
