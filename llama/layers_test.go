package llama

import (
	"context"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// layerCases are caches whose windows are flushed within some 40 tokens: by both policies, with
// layers that differ, with what is learnt of a prompt.
var layerCases = map[string]kvq.Config{
	"full":   {},
	"quanto": {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 16},
	"layers": {Backend: kvq.Blocks, NBits: 4, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: kvq.PerChannel, ResidualLength: 8, Sinks: 2, LayerBits: "1=8/2"},
	"feedback": {Backend: kvq.Blocks, NBitsKey: 3, NBitsValue: 2, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: kvq.PerChannel, ResidualLength: 8, Sinks: 2,
		QuantizerKey: kvq.Unbiased, TokenScales: true, FeedbackKey: kvq.FeedbackQueries},
}

// Steps, a graph of each layer for each token, make the tokens of the loop, and leave the same
// cache: rows of their own lengths, windows that are flushed on the way, rows that end early, all
// ways of picking.
func TestStepsMakeWhatTheLoopMakes(t *testing.T) {
	for name, config := range layerCases {
		t.Run(name, func(t *testing.T) {
			if name != "quanto" {
				testlane.Slow(t, "one cache is enough for a quick look")
			}
			g := tinyGenerator(t, "tiny-llama2-gqa", config)
			ids, mask := raggedBatch()
			gc := GenerateConfig{MaxNewTokens: 48, EOS: []tokenizer.Token{}}
			ending := mustGenerate(t, g, ids, mask, gc).Row(0)[20]
			for which, gc := range map[string]GenerateConfig{
				"greedy":  gc,
				"sampled": {MaxNewTokens: 40, EOS: []tokenizer.Token{}, DoSample: true, Temperature: 1.2, TopK: 30, Seed: 4, RepetitionPenalty: 1.3},
				"ended":   {MaxNewTokens: 48, EOS: []tokenizer.Token{ending}, PadID: new(tokenizer.Token(3))},
			} {
				steps := mustGenerate(t, g, ids, mask, gc)
				gc.BlockSize = 8 // the loop
				loop := mustGenerate(t, g, ids, mask, gc)
				if !slices.EqualFunc(steps.Tokens, loop.Tokens, slices.Equal) || !slices.Equal(steps.Lengths, loop.Lengths) || steps.Stop != loop.Stop {
					t.Errorf("%s: steps %v (%s), loop %v (%s)", which, steps.Tokens, steps.Stop, loop.Tokens, loop.Stop)
				}
				if which == "greedy" && (!slices.Equal(steps.CodedTokens, loop.CodedTokens) || steps.Cache != loop.Cache || steps.Timing.Steps != loop.Timing.Steps) {
					t.Errorf("%s: steps leave %v coded, %+v after %d, the loop %v, %+v after %d", which,
						steps.CodedTokens, steps.Cache, steps.Timing.Steps, loop.CodedTokens, loop.Cache, loop.Timing.Steps)
				}
			}
		})
	}
}

// A prompt that is read layer by layer leaves the cache, and gives the logits, of the graph of all
// layers. A code may fall to its neighbour where a value lies on the edge between two.
func TestPromptByLayers(t *testing.T) {
	testlane.Slow(t, "compiles prompts in two ways")
	ctx := context.Background()
	for name, config := range layerCases {
		t.Run(name, func(t *testing.T) {
			g := tinyGenerator(t, "tiny-llama2-gqa", config)
			ids, mask := raggedBatch()
			p, err := newPrompt(tokenizer.Batch{IDs: ids, Mask: mask}, g.model.config)
			if err != nil {
				t.Fatal(err)
			}
			p = p.resize(p.length + 3)
			plan, err := g.Plan(len(ids), 128)
			if err != nil {
				t.Fatal(err)
			}
			metrics, err := g.sharedMetrics(ctx, plan, &Timing{})
			if err != nil {
				t.Fatal(err)
			}
			var states [2][]sharded
			var logits [2][]float32
			for i, r := range []reading{g.startPrompt(plan, p.length), wholePrompt{g.startPrefill(plan, p.length), g}} {
				if err := r.Wait(ctx); err != nil {
					t.Fatal(err)
				}
				state, last, err := r.read(ctx, p.ids, p.start, metrics)
				if err != nil {
					t.Fatal(err)
				}
				defer free(append(state, last)...)
				if logits[i], err = read[float32](last); err != nil {
					t.Fatal(err)
				}
				states[i] = state
			}
			if d := worst(t, logits[0], logits[1]); d > 1e-4 {
				t.Errorf("logits differ by %g", d)
			}
			for i, x := range states[0] {
				y := states[1][i]
				if !x.layout().shape.Equal(y.layout().shape) {
					t.Fatalf("array %d is %s, in one graph %s", i, x.layout().shape, y.layout().shape)
				}
				switch x.layout().shape.DType {
				case dtypes.Int32:
					a, _ := read[int32](x)
					b, _ := read[int32](y)
					if !slices.Equal(a, b) {
						t.Errorf("array %d is %v, in one graph %v", i, a, b)
					}
				case dtypes.Float32:
					a, _ := read[float32](x)
					b, _ := read[float32](y)
					if d := worst(t, a, b); d > 1e-3 {
						t.Errorf("array %d differs by %g", i, d)
					}
				}
			}
		})
	}
}

// The graph of a layer updates the layer's part of the cache in its place, and layers that are
// alike share it.
func TestLayersUpdateTheCacheInPlace(t *testing.T) {
	for name, config := range layerCases {
		t.Run(name, func(t *testing.T) {
			if name != "quanto" {
				testlane.Slow(t, "one cache is enough for a quick look")
			}
			g := tinyGenerator(t, "tiny-llama2-gqa", config)
			plan, err := g.Plan(2, 256)
			if err != nil {
				t.Fatal(err)
			}
			l := g.startLayers(plan, 1, false)
			all := l.layers
			if l.ones[0].Full > 0 {
				all = append(slices.Clone(all), l.startFlush()...)
			}
			if err := waitAll(context.Background(), all); err != nil {
				t.Fatal(err)
			}
			for i, p := range all {
				_, own, _ := l.planOf(i % len(l.layers))
				var want int64
				for _, a := range own {
					want += int64(a.shape.ByteSize())
				}
				if got := p.Of.needs.Reused; got != want {
					t.Errorf("graph %d writes %d bytes in place, want all %d of the layer", i, got, want)
				}
			}
			if alike := l.layers[0] == l.layers[1]; alike != (name != "layers") {
				t.Errorf("layers 0 and 1 share a graph: %v", alike)
			}
		})
	}
}
