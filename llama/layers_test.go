package llama

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// layerCases are caches whose windows are flushed within some 40 tokens: by both policies, with
// layers that differ, with what is learnt of a prompt. Of "exact prompt" nothing is in codes before
// that, of "exact" nothing within 128 tokens.
var layerCases = map[string]kvq.Config{
	"full":   {},
	"quanto": {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 16},
	"layers": {Backend: kvq.Blocks, NBits: 4, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: kvq.PerChannel, ResidualLength: 8, Sinks: 2, LayerBits: "1=8/2"},
	"feedback": {Backend: kvq.Blocks, NBitsKey: 3, NBitsValue: 2, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: kvq.PerChannel, ResidualLength: 8, Sinks: 2,
		QuantizerKey: kvq.Unbiased, TokenScales: true, FeedbackKey: kvq.FeedbackQueries},
	"exact prompt": exactCase(32, 36),
	"exact":        exactCase(64, 64),
}

// exactCase has layers that differ in their codes alone.
func exactCase(group, window int) kvq.Config {
	return kvq.Config{Backend: kvq.Blocks, NBitsKey: 2, NBitsValue: 2, LayerBits: "1=4/3", QGroupSizeKey: group, QGroupSizeValue: 16, AxisKey: kvq.PerChannel,
		ResidualLength: window, Sinks: 4, QuantizerKey: kvq.Unbiased, TokenScales: true, FeedbackKey: kvq.FeedbackQueries}
}

// Steps, a graph of each layer for each token, make the tokens of the loop, and both leave the
// bytes of a loop that flushes windows inside of its steps: rows of their own lengths, windows
// that are flushed on the way, rows that end early, all ways of picking.
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
				steps, left := generateLeaving(t, g, ids, mask, gc)
				gc.BlockSize = 8 // the loop
				loop, looped := generateLeaving(t, g, ids, mask, gc)
				if which == "greedy" {
					inside := leftInside(t, g.model, config, ids, mask, gc)
					for i := range inside {
						if !bytes.Equal(left[i], inside[i]) || !bytes.Equal(looped[i], inside[i]) {
							t.Errorf("array %d of the cache: %d bytes, the same as with the flush inside after steps: %t, after the loop: %t", i,
								len(inside[i]), bytes.Equal(left[i], inside[i]), bytes.Equal(looped[i], inside[i]))
						}
					}
				}
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

// generateLeaving is mustGenerate that also gives the bytes of the cache's arrays at the end.
func generateLeaving(t *testing.T, g *Generator, ids, mask [][]int32, gc GenerateConfig) (r *Result, left [][]byte) {
	t.Helper()
	seen := func(_ *kvq.Plan, state []*tensors.Tensor) error {
		for _, x := range state {
			left = append(left, bytesOf(t, sharded{parts: []*tensors.Tensor{x}}))
		}
		return nil
	}
	out, err := engine.Generate(context.Background(), g, tokenizer.Batch{IDs: ids, Mask: mask}, gc, seen)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) == 0 {
		t.Fatal("nobody saw the cache")
	}
	return out.(*Result), left
}

// leftInside are the bytes that a loop leaves which flushes windows inside of its steps, as a graph
// of a single step does.
func leftInside(t *testing.T, model *Model, config kvq.Config, ids, mask [][]int32, gc GenerateConfig) [][]byte {
	t.Helper()
	apart := kvqhook.FlushedApart
	defer func() { kvqhook.FlushedApart = apart }()
	kvqhook.FlushedApart = func(plan any) kvqhook.Apart { return kvqhook.Apart{Plan: plan} }
	own := mustGenerator(t, model, config) // what others compiled is otherwise
	_, left := generateLeaving(t, own, ids, mask, gc)
	return left
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
			if graphs := g.startPrompt(plan, p.length).(*stepGraphs); graphs.uncoded != (config == layerCases["exact"] || config == layerCases["exact prompt"]) {
				t.Errorf("the layers' graphs are without codes: %t", graphs.uncoded)
			} else if graphs.uncoded {
				emptyCodes(t, graphs, states)
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

// emptyCodes compares the arrays of codes, which nothing is in.
func emptyCodes(t *testing.T, l *stepGraphs, states [2][]sharded) {
	t.Helper()
	at := l.ones[0].Shared
	for layer, n := range l.own {
		for i := at + l.ones[layer].Codes[0]; i < at+l.ones[layer].Codes[1]; i++ {
			if a, b := bytesOf(t, states[0][i]), bytesOf(t, states[1][i]); !bytes.Equal(a, b) {
				t.Errorf("array %d of codes is %v, in one graph %v", i, a, b)
			}
		}
		at += n
	}
	if at != len(states[0]) {
		t.Errorf("%d arrays, want %d", at, len(states[0]))
	}
}

func bytesOf(t *testing.T, x sharded) (data []byte) {
	t.Helper()
	if err := x.parts[0].ConstBytes(func(all []byte) { data = bytes.Clone(all) }); err != nil {
		t.Fatal(err)
	}
	return data
}

// Layers that differ in their codes alone share a graph where nothing is in codes: a prompt of 131
// tokens at most (4 sinks, a window of 64 and a block of 64 that is not whole), and steps with room
// for no more. Where codes may be, each has its own.
func TestLayersWithoutCodesShareAGraph(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2-gqa", layerCases["exact"])
	for _, c := range []struct {
		tokens, capacity int
		fresh, share     bool
	}{{131, 256, true, true}, {132, 256, true, false}, {1, 131, false, true}, {1, 132, false, false}} {
		plan, err := g.Plan(1, c.capacity)
		if err != nil {
			t.Fatal(err)
		}
		l := g.startLayers(plan, c.tokens, c.fresh)
		if share := l.layers[0] == l.layers[1]; share != c.share {
			t.Errorf("%d tokens, of a prompt: %t, %d slots: layers share a graph: %t, want %t", c.tokens, c.fresh, c.capacity, share, c.share)
		}
	}
}

// The graph of a layer updates the layer's part of the cache in its place, and layers that are
// alike share it. So does the flush with all of the cache.
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
			if err := l.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
			for i, p := range l.layers {
				_, own, _ := l.planOf(i)
				var want int64
				for _, a := range own {
					want += int64(a.shape.ByteSize())
				}
				if got := p.Of.needs.Reused; got != want {
					t.Errorf("layer %d writes %d bytes in place, want all %d", i, got, want)
				}
			}
			if name != "full" {
				flush := g.startFlush(plan)
				if err := flush.Wait(context.Background()); err != nil {
					t.Fatal(err)
				}
				if got, want := flush.Of.needs.Reused, plan.Memory().Total(); got != want {
					t.Errorf("the flush writes %d bytes in place, want all %d", got, want)
				}
			}
			if alike := l.layers[0] == l.layers[1]; alike != (config.LayerBits == "") {
				t.Errorf("layers 0 and 1 share a graph: %v", alike)
			}
		})
	}
}
