package llama

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// prompts is smollm2/prompts.json of the goldens: the tutorial's two prompts.
type prompts struct {
	IDs      [][]int32 `json:"input_ids"`
	Mask     [][]int32 `json:"attention_mask"`
	Variants map[string]struct {
		Generated [][]int32 `json:"generated_ids"`
		Steps     []struct {
			IDs    [][]int32   `json:"top5_ids"`
			Logits [][]float32 `json:"top5_logits"`
		} `json:"steps"`
	} `json:"variants"`
}

func readPrompts(t testing.TB) prompts {
	t.Helper()
	var p prompts
	golden.JSON(t, &p, golden.Dir(t), "smollm2", "prompts.json")
	return p
}

// The tutorial's prompts on the real model, weights rounded to float16 as those of the goldens
// were: the first logits within 2e-3, and the same 20 tokens. Where the tokens part, it has to be
// at a close call.
func TestTutorialPromptsMatchTransformers(t *testing.T) {
	testlane.Slow(t, "the small model")
	testbackend.XLA(t)
	p := readPrompts(t)
	want := p.Variants["full"]
	m := mustLoad(t, smallModel(t), LoadOptions{DType: dtypes.Float32, RoundFloat16: true})
	defer m.Finalize()
	g := mustGenerator(t, m, kvq.Config{})

	result, err := g.Generate(context.Background(), tokenizer.Batch{IDs: p.IDs, Mask: p.Mask}, GenerateConfig{MaxNewTokens: 20, MinNewTokens: 20, KeepLogits: true})
	if err != nil {
		t.Fatal(err)
	}
	first := golden.Npy(t, golden.Dir(t), "smollm2", "full_step0_logits.npy")
	for row, got := range result.Logits[0] {
		if d := worst(t, got, first.Floats[row*len(got):(row+1)*len(got)]); d > 2e-3 {
			t.Errorf("row %d: first logits differ by up to %g, want at most 2e-3", row, d)
		} else {
			t.Logf("row %d: first logits differ by up to %g", row, d)
		}
	}
	for row, got := range result.Tokens {
		step := 0
		for step < len(got) && got[step] == want.Generated[row][step] {
			step++
		}
		if step == len(got) {
			continue
		}
		// Another order of summing may decide between tokens that are closer than the logits'
		// tolerance.
		top := want.Steps[step]
		gap := top.Logits[row][0] - top.Logits[row][1]
		t.Logf("row %d parts from transformers at step %d, where its two best tokens are %g apart", row, step, gap)
		if gap > 4e-3 || got[step] != top.IDs[row][1] {
			t.Errorf("row %d: token %d at step %d, transformers has %d", row, got[step], step, want.Generated[row][step])
		}
	}

	// With transformers' tokens forced, every step's best five logits.
	forced, err := g.Generate(context.Background(), tokenizer.Batch{IDs: p.IDs, Mask: p.Mask}, GenerateConfig{TeacherForced: want.Generated, KeepLogits: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range want.Steps {
		for row := range step.IDs {
			for j, id := range step.IDs[row] {
				if d := forced.Logits[i][row][id] - step.Logits[row][j]; !(d < 2e-3 && d > -2e-3) {
					t.Errorf("step %d, row %d: logit of token %d is off by %g, want at most 2e-3", i, row, id, d)
				}
			}
		}
	}
	t.Logf("timing: %+v", result.Timing)
}

// With the GGUF's own weights the goldens, made from float16, hold within 0.03.
func TestTutorialPromptsWithExactWeights(t *testing.T) {
	testlane.Slow(t, "the small model")
	testbackend.XLA(t)
	p := readPrompts(t)
	m := mustModel(t, smallModel(t), dtypes.Float32)
	defer m.Finalize()
	result, err := mustGenerator(t, m, kvq.Config{}).Generate(context.Background(), tokenizer.Batch{IDs: p.IDs, Mask: p.Mask}, GenerateConfig{MaxNewTokens: 1, KeepLogits: true})
	if err != nil {
		t.Fatal(err)
	}
	first := golden.Npy(t, filepath.Join(golden.Dir(t), "smollm2", "full_step0_logits.npy"))
	got := slices.Concat(result.Logits[0]...)
	if d := worst(t, got, first.Floats); d > 0.03 {
		t.Errorf("first logits differ by up to %g, want at most 0.03", d)
	}
}
