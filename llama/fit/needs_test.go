package fit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// What is predicted is near to what XLA says its graphs need: weights and cache to the byte but for
// the small inputs, the work between 0.7 and 2 times, or a few megabytes where there is hardly any.
func TestNeedsAgainstXLA(t *testing.T) {
	testlane.Slow(t, "compiles a model for every kind of need")
	backend := testbackend.XLA(t)
	wide := llama.Config{Architecture: "llama", VocabSize: 32000, HiddenSize: 512, IntermediateSize: 1376, Layers: 2, Heads: 4, KVHeads: 4, HeadDim: 128,
		MaxPositions: 8192, RMSNormEps: 1e-5, RopeTheta: 10000}
	grouped := llama.Config{Architecture: "llama", VocabSize: 4096, HiddenSize: 576, IntermediateSize: 1536, Layers: 3, Heads: 9, KVHeads: 3, HeadDim: 64,
		MaxPositions: 8192, RMSNormEps: 1e-5, RopeTheta: 10000, TieEmbeddings: true}
	biased, normed := grouped, grouped
	biased.Architecture, biased.Heads, biased.KVHeads = "qwen2", 8, 2
	normed.Architecture = "qwen3"
	for _, r := range []Request{
		{Model: wide, DType: dtypes.Float32, Batch: 4, Prompt: 256, NewTokens: 64},
		{Model: wide, DType: dtypes.Float32, Batch: 1, Prompt: 2048, NewTokens: 64, Cache: kvq.Tutorial()},
		{Model: wide, DType: dtypes.Float16, Batch: 2, Prompt: 1024, NewTokens: 64, Cache: kvq.Tutorial()},
		{Model: grouped, DType: dtypes.Float32, Batch: 2, Prompt: 1024, NewTokens: 64},
		{Model: grouped, DType: dtypes.BFloat16, Batch: 1, Prompt: 2048, NewTokens: 2048, Cache: kvq.Tutorial()},
		{Model: biased, DType: dtypes.Float16, Batch: 2, Prompt: 512, NewTokens: 64, Cache: kvq.Tutorial()},
		{Model: normed, DType: dtypes.Float32, Batch: 2, Prompt: 1024, NewTokens: 64},
	} {
		t.Run(fmt.Sprintf("%s/%d/%s/%dx%d", r.Model.Architecture, r.Model.HiddenSize, r.DType, r.Batch, r.Prompt), func(t *testing.T) {
			n, err := r.Needs(true)
			if err != nil {
				t.Fatal(err)
			}
			c, err := r.Compile(context.Background(), backend)
			if err != nil {
				t.Fatal(err)
			}
			const few = 8 << 20
			near := func(what string, predicted, measured int64) {
				t.Logf("%s: predicted %d, XLA %d (%.2f)", what, predicted, measured, float64(predicted)/float64(measured))
				if d := predicted - measured; (d > few || -d > few) && (float64(predicted) < 0.7*float64(measured) || float64(predicted) > 2*float64(measured)) {
					t.Errorf("%s: predicted %d, XLA says %d", what, predicted, measured)
				}
			}
			near("work of the prompt", r.promptWork(true, false, false), c.Prompt.Temporary+r.logits())
			near("work of a step", r.stepWork(true), c.Step.Temporary)
			plans, err := r.plans()
			if err != nil {
				t.Fatal(err)
			}
			if cache := plans[len(plans)-1].Memory(); cache != n.Cache || c.Step.Reused != cache.Total() {
				t.Errorf("a cache of %+v, want %+v; XLA writes %d bytes of it in place", n.Cache, cache, c.Step.Reused)
			}
			if d := c.Prompt.Inputs - n.Weights; d < 0 || d > 1<<20 {
				t.Errorf("weights of %d bytes predicted, XLA takes in %d", n.Weights, c.Prompt.Inputs)
			}
		})
	}
}

// Weights that stay packed are counted as they are when they are loaded; and XLA's figures for the
// graphs.
func TestNeedsOfPackedWeights(t *testing.T) {
	testlane.Slow(t, "compiles the small model")
	backend := testbackend.XLA(t)
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	f, err := llama.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.Load(backend, llama.LoadOptions{Weights: llama.PackedWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	r := Request{Model: f.Config(), DType: dtypes.Float32, Packed: true, Batch: 1, Prompt: 64, NewTokens: 16}
	n, err := r.Needs(true)
	if err != nil {
		t.Fatal(err)
	}
	if n.Weights != m.Bytes() {
		t.Errorf("%d bytes of weights predicted, %d are there", n.Weights, m.Bytes())
	}
	c, err := r.Compile(context.Background(), backend)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("predicted %+v, XLA %+v", n, c)
	if d := c.Prompt.Inputs - n.Weights; d < 0 || d > 1<<20 {
		t.Errorf("weights of %d bytes predicted, XLA takes in %d", n.Weights, c.Prompt.Inputs)
	}
	if p := c.Prompt.Temporary; p > 2*r.promptWork(true, false, false) || 3*p < r.promptWork(true, false, false) {
		t.Errorf("work of the prompt: predicted %d, XLA says %d", r.promptWork(true, false, false), p)
	}
}

func TestNeedsRefuse(t *testing.T) {
	c := llama.Config{Architecture: "llama", VocabSize: 64, HiddenSize: 32, IntermediateSize: 64, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 8, MaxPositions: 64,
		RMSNormEps: 1e-5, RopeTheta: 10000}
	for _, x := range []struct {
		change func(*Request)
		want   string
	}{
		{func(r *Request) { r.Batch = 0 }, "batch 0"},
		{func(r *Request) { r.Prompt = 0 }, "prompt of 0"},
		{func(r *Request) { r.Devices = 3 }, "2 key/value heads"},
		{func(r *Request) { r.Cache = kvq.Tutorial(); r.Cache.QGroupSize = 5 }, "5"}, // in heads of 8
	} {
		r := Request{Model: c, DType: dtypes.Float32, Batch: 1, Prompt: 4, NewTokens: 4}
		x.change(&r)
		_, err := r.Needs(true)
		if !errors.Is(err, llama.ErrInput) || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line of bad input with %q", err, x.want)
		}
	}
}
