package fit

import (
	"context"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

var llama2 = llama.Config{Architecture: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32, Heads: 32, KVHeads: 32,
	HeadDim: 128, MaxPositions: 4096, RMSNormEps: 1e-5, RopeTheta: 10000}

// Where a prompt's attention is fused, no scores are counted. Of eight rows of 2,048 tokens of
// Llama-2-7B, whose scores would be twice 8·32·256·2,048·4 bytes, XLA gave 1.62 GB of temporaries
// on an H200 (docs/bench-log.md).
func TestNeedsOfFusedPrompts(t *testing.T) {
	before := kvqhook.FusesPrompt
	defer func() { kvqhook.FusesPrompt = before }()
	var asked int
	kvqhook.FusesPrompt = func(_ any, _ compute.Backend, heads, tokens int) bool {
		if heads != asked || tokens != 2048 {
			t.Errorf("asked for %d heads, %d tokens; want %d, 2048", heads, tokens, asked)
		}
		return true
	}
	open := struct{ compute.Backend }{} // not nil
	need := func(backend compute.Backend, devices int) int64 {
		asked = 32 / devices
		n, err := Request{Model: llama2, DType: dtypes.Float16, Cache: kvq.Tutorial(), Batch: 8, Prompt: 2048, NewTokens: 1, Capacity: 2048,
			Devices: devices, Backend: backend}.Needs(false)
		if err != nil || n.For != "the prompt" {
			t.Fatalf("%d devices: %+v, %v", devices, n, err)
		}
		return n.Work
	}
	const (
		rest   = 4 * 8 * 32000                                   // logits
		scores = 2 * 8 * 32 * 256 * 2048 * 4                     //
		parts  = 8 * 2048 * (2*4096 + 2*3*32*128 + 32*128) * 2   // x, norm; heads twice; output
		fused  = 8 * 2048 * (2*4096 + 3*3*32*128 + 2*32*128) * 2 // x, norm; heads three times; output twice
		ofTwo  = 8 * 2048 * (2*4096 + 3*3*16*128 + 2*16*128) * 2 // x and norm are whole
	)
	for _, c := range []struct {
		what    string
		backend compute.Backend
		devices int
		want    int64
	}{
		{"no device open", nil, 1, parts + scores + rest},
		{"fused", open, 1, fused + rest},
		{"fused on two devices", open, 2, ofTwo + rest},
	} {
		if got := need(c.backend, c.devices); got != c.want {
			t.Errorf("%s: %d bytes of work, want %d", c.what, got, c.want)
		}
	}
	if got := float64(need(open, 1)) / 1.62e9; got < 0.7 || got > 2 {
		t.Errorf("%.2f times what XLA says", got)
	}
}

// The prediction is near to what XLA says on a GPU, with attention fused and not.
func TestNeedsOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	model := llama2
	model.Layers, model.VocabSize = 2, 4096
	for _, dtype := range []dtypes.DType{dtypes.Float16, dtypes.Float32} {
		t.Run(dtype.String(), func(t *testing.T) {
			r := Request{Model: model, DType: dtype, Cache: kvq.Tutorial(), Batch: 4, Prompt: 2048, NewTokens: 1, Capacity: 2304, Backend: backend}
			plans, err := r.plans()
			if err != nil {
				t.Fatal(err)
			}
			fused := kvqhook.FusesPrompt(plans[0], backend, model.Heads, r.columns())
			if want := dtype == dtypes.Float16; fused != want {
				t.Errorf("fused: %v, want %v", fused, want)
			}
			c, err := r.Compile(context.Background(), backend, PromptPart)
			if err != nil {
				t.Fatal(err)
			}
			predicted, xla := r.promptWork(false, fused, true), c.Prompt.Temporary+r.logits()
			t.Logf("predicted %d, XLA %d", predicted, xla)
			if ratio := float64(predicted) / float64(xla); ratio < 0.7 || ratio > 2 {
				t.Errorf("predicted %d bytes, XLA says %d", predicted, xla)
			}
		})
	}
}
