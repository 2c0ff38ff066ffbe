package llama

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// sideBySide is one model, cache and prompt under kvq.Session and under Generator.
type sideBySide struct {
	t       testing.TB
	g       *Generator
	s       *kvq.Session
	weights []any
	prompt  []int32
	tokens  int // to make
}

func newSideBySide(t testing.TB, m *Model, config kvq.Config, prompt, tokens int) *sideBySide {
	t.Helper()
	c := &sideBySide{t: t, g: mustGenerator(t, m, config), tokens: tokens}
	for i := range prompt {
		c.prompt = append(c.prompt, int32(1+i*97%(m.config.VocabSize-1)))
	}
	plan, err := c.g.Plan(1, generate.FirstCapacity(generate.PromptColumns(prompt), tokens))
	if err != nil {
		t.Fatal(err)
	}
	// A plain graph function, whose weights come as inputs after the tokens.
	c.s, err = kvq.NewSession(m.on.backend, nil, plan, func(_ *model.Scope, cache kvq.Cache, in []*graph.Node) []*graph.Node {
		w, _ := m.nodes(in[1:])
		return []*graph.Node{w.lastLogits(m.hidden(w, in[0], cache, nil))}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.s.Finalize)
	for _, w := range m.weights {
		c.weights = append(c.weights, w.parts[0])
	}
	return c
}

// generator makes the tokens by Generator: the time of a step, and what was waited for compilers.
func (c *sideBySide) generator() (step, compile time.Duration, made []int32) {
	c.t.Helper()
	r, err := c.g.Generate(context.Background(), tokenizer.Batch{IDs: [][]int32{c.prompt}},
		GenerateConfig{MaxNewTokens: c.tokens, EOS: []tokenizer.Token{}, BlockSize: generate.MaxBlock})
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Timing.Decode / time.Duration(r.Timing.Steps), r.Timing.Compile, r.Tokens[0]
}

// session makes the tokens by a session: the time of a step, and of all together.
func (c *sideBySide) session() (step, all time.Duration, made []int32) {
	c.t.Helper()
	c.s.Reset()
	config := kvq.Generation{MaxTokens: c.tokens, Block: generate.MaxBlock, Inputs: c.weights}
	start := time.Now()
	if err := c.s.Prepare(config); err != nil {
		c.t.Fatal(err)
	}
	prompt, padding := kvq.PadLeft([][]int32{c.prompt}, 0)
	if _, err := c.s.PrefillPadded(context.Background(), padding, append([]any{prompt}, c.weights...)...); err != nil {
		c.t.Fatal(err)
	}
	var first time.Time
	for fresh, err := range c.s.Stream(context.Background(), config) {
		if err != nil {
			c.t.Fatal(err)
		}
		if made = append(made, fresh[0]...); len(made) == 1 {
			first = time.Now()
		}
	}
	return time.Since(first) / time.Duration(c.tokens-1), time.Since(start), made
}

// A session makes the tokens that the generator makes.
func TestSessionEqualsGenerator(t *testing.T) {
	c := newSideBySide(t, tinyModel(t, "tiny-llama2", dtypes.Float32), kvq.Config{}, 11, 30)
	_, _, want := c.generator()
	for range 2 {
		if _, _, got := c.session(); !slices.Equal(got, want) {
			t.Errorf("session %v, generator %v", got, want)
		}
	}
}

// BenchmarkSession runs models by kvq.Session and by Generator in turn: the same prompt, cache and
// tokens. Metrics are the shortest step and what was waited for compilers.
func BenchmarkSession(b *testing.B) {
	testbackend.XLA(b)
	loaded := map[string]func() *Model{
		"tiny":  func() *Model { return tinyModel(b, "tiny-llama2", dtypes.Float32) },
		"small": func() *Model { return mustModel(b, smallModel(b), dtypes.Float32) },
	}
	for name, m := range loaded {
		for cache, config := range map[string]kvq.Config{"full": {}, "quanto4": {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 32}} {
			b.Run(name+"/"+cache, func(b *testing.B) {
				c := newSideBySide(b, m(), config, 64, 1+generate.MaxBlock)
				_, compile, want := c.generator()
				_, first, got := c.session()
				if !slices.Equal(got, want) {
					b.Fatalf("session %v, generator %v", got, want)
				}
				stepGenerator, stepSession, again := time.Hour, time.Hour, time.Hour
				for b.Loop() {
					step, _, _ := c.generator()
					stepGenerator = min(stepGenerator, step)
					step, all, _ := c.session()
					stepSession, again = min(stepSession, step), min(again, all)
				}
				b.ReportMetric(stepGenerator.Seconds()*1e3, "generator-ms/step")
				b.ReportMetric(stepSession.Seconds()*1e3, "session-ms/step")
				b.ReportMetric(compile.Seconds(), "generator-compile-s")
				b.ReportMetric((first - again).Seconds(), "session-compile-s")
			})
		}
	}
}
