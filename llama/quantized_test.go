package llama

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// transformers with its quanto cache, groups as long as a head (longer ones mix tokens and heads
// there), several residual lengths: with the golden's tokens forced, the same logits. A code may
// fall to its neighbour where a value lies on the edge between two, hence the tolerance.
func TestQuantoGenerationMatchesTransformers(t *testing.T) {
	for _, name := range tinyNames {
		info, want := readTiny(t, name)
		for _, c := range []struct{ bits, residual int }{{4, 1}, {4, 4}, {2, 8}} {
			g := tinyGenerator(t, name, kvq.Config{Backend: kvq.Quanto, NBits: c.bits, QGroupSize: 16, ResidualLength: c.residual})
			for _, input := range []string{"len16", "len13"} {
				variant := fmt.Sprintf("%s.quanto_b%d_g16_r%d_ax0", input, c.bits, c.residual)
				t.Run(name+"/"+variant, func(t *testing.T) {
					if name != tinyNames[0] || c.residual != 1 {
						testlane.Slow(t, "one cache of one model is enough for a quick look")
					}
					in := info.Inputs[input]
					r := mustGenerate(t, g, in.IDs, in.Mask, GenerateConfig{TeacherForced: info.Variants[variant].Generated, KeepLogits: true})
					checkLogits(t, r.Logits, want[variant+".logits"], 2e-3)
				})
			}
		}
	}
}

// The tutorial's configuration on the real model: second-step logits, the first that see quantized
// keys and values, within 5e-3, and the same 20 tokens.
func TestTutorialCacheMatchesTransformers(t *testing.T) {
	testlane.Slow(t, "the small model with the tutorial's cache")
	testbackend.XLA(t)
	p := readPrompts(t)
	want := p.Variants["quanto_b4_g32_r64"].Generated
	m := mustLoad(t, smallModel(t), LoadOptions{DType: dtypes.Float32, RoundFloat16: true})
	defer m.Finalize()
	g := mustGenerator(t, m, kvq.Tutorial())
	r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: p.IDs, Mask: p.Mask}, GenerateConfig{MaxNewTokens: 20, MinNewTokens: 20, KeepLogits: true})
	if err != nil {
		t.Fatal(err)
	}
	for row := range want {
		if !slices.Equal(r.Tokens[row], want[row]) {
			t.Errorf("row %d: %v, want %v", row, r.Tokens[row], want[row])
		}
	}
	second := golden.Npy(t, golden.Dir(t), "smollm2", "quanto_b4_g32_r64_step1_logits.npy")
	if d := worst(t, slices.Concat(r.Logits[1]...), second.Floats); d > 5e-3 {
		t.Errorf("second logits differ by up to %g, want at most 5e-3", d)
	} else {
		t.Logf("second logits differ by up to %g", d)
	}
	t.Logf("timing: %+v", r.Timing)
}
