package main

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/zoo/transformer"
	gomlxgenerate "github.com/gomlx/gomlx/ml/zoo/transformer/generate"
	"github.com/gomlx/gomlx/ml/zoo/transformer/generate/sample"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
)

func newStore() *model.Store {
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(42))
	return store
}

func promptOf(n int) []int32 {
	prompt := make([]int32, n)
	for i := range prompt {
		prompt[i] = int32((17 + 31*i) % vocabulary)
	}
	return prompt
}

// native is GoMLX's own generator with its own cache, of so many tokens.
func native(store *model.Store, length int) *gomlxgenerate.Generator {
	m := newModel(store.RootScope()).WithMaxPosEmbed(length)
	m.PopulateKVCacheConfigs()
	m.KVCache.WithMaxSeqLenPerLayerType([]int{length, length}).WithMinSeqLenPerLayerType([]int{length, length})
	return gomlxgenerate.New(transformer.MakeKVCacheModelFn(m)).WithKVCache(m.KVCache, kvHeads, headDim, dtypes.Float32).WithMaxLength(length)
}

// A session with a cache in full precision gives the tokens of GoMLX's own generator and cache.
func TestTokensAreGoMLXs(t *testing.T) {
	backend, store, prompt := testbackend.Go(t), newStore(), promptOf(12)
	out, err := native(store, 32).Decode(backend, store.RootScope(), [][]int32{prompt})
	if err != nil {
		t.Fatal(err)
	}
	want := out.Value().([][]int32)[0][len(prompt):]
	ctx, s := context.Background(), mustSession(t, backend, store, kvq.Config{}, 1)
	if _, err := s.Prefill(ctx, [][]int32{prompt}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Generate(ctx, kvq.Generation{MaxTokens: len(want), Pick: sampleWith(sample.StrategyGreedy, 1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got[0], want) {
		t.Errorf("%v, GoMLX's generator gives %v", got[0], want)
	}
}

// GoMLX's sampling in the session's loop: the seed decides the tokens, and of one candidate there
// is one choice, the best.
func TestSampling(t *testing.T) {
	backend, store, ctx := testbackend.Go(t), newStore(), context.Background()
	s := mustSession(t, backend, store, kvq.Tutorial(), 2)
	draw := func(pick *kvq.Pick, seed int64) [][]int32 {
		s.Reset()
		if _, err := s.Prefill(ctx, [][]int32{promptOf(12), promptOf(12)}); err != nil {
			t.Fatal(err)
		}
		rows, err := s.Generate(ctx, kvq.Generation{MaxTokens: 3, Pick: pick, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	nucleus := sampleWith(sample.StrategyTopP, 1, 0, 0.95)
	first, again, other := draw(nucleus, 1), draw(nucleus, 1), draw(nucleus, 2)
	if !slices.EqualFunc(first, again, slices.Equal) {
		t.Errorf("one seed gives %v and %v", first, again)
	}
	if slices.EqualFunc(first, other, slices.Equal) || slices.Equal(first[0], first[1]) {
		t.Errorf("seeds 1 and 2, two rows each, give %v and %v", first, other)
	}
	greedy, one := draw(sampleWith(sample.StrategyGreedy, 1, 0, 0), 1), draw(sampleWith(sample.StrategyTopK, 1, 1, 0), 1)
	if !slices.EqualFunc(greedy, one, slices.Equal) {
		t.Errorf("the best of one candidate gives %v, greedy %v", one, greedy)
	}
}

func mustSession(t testing.TB, backend compute.Backend, store *model.Store, config kvq.Config, batch int) *kvq.Session {
	t.Helper()
	s, err := newSession(backend, store, config, batch, 128)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Finalize)
	return s
}

// BenchmarkBeside measures caches beside GoMLX's own, in one process on XLA: a prompt of 64 tokens
// and 60 single steps, everything compiled anew.
//
//	KVQ_COMPILED=off go test ./examples/transformer -run xxx -bench Beside -benchtime 1x
//
// Both sides pick on the device and hand each token to the host as it comes. prefill-s and first-s
// have compiling in them; step-ms is the median of the steps after. loop-ms is a step of a session
// that makes its tokens by one call of the loop, which GoMLX's generator does not have.
func BenchmarkBeside(b *testing.B) {
	const prompt, steps, room = 64, 60, 128
	backend := testbackend.XLA(b)
	report := func(b *testing.B, took []time.Duration) {
		rest := slices.Sorted(slices.Values(took[2:]))
		b.ReportMetric(took[0].Seconds(), "prefill-s")
		b.ReportMetric(took[1].Seconds(), "first-s")
		b.ReportMetric(float64(rest[len(rest)/2].Microseconds())/1000, "step-ms")
		b.ReportMetric(0, "ns/op")
	}
	b.Run("GoMLX's cache and generator", func(b *testing.B) {
		for range b.N {
			store := newStore()
			var took []time.Duration
			begin := time.Now()
			err := native(store, room).GenerateStreaming(backend, store.RootScope(), [][]int32{promptOf(prompt)}, func(int) bool {
				took, begin = append(took, time.Since(begin)), time.Now()
				return len(took) <= steps
			})
			if err != nil {
				b.Fatal(err)
			}
			report(b, took)
		}
	})
	for _, config := range []kvq.Config{{}, kvq.Tutorial()} {
		b.Run(config.String(), func(b *testing.B) {
			for range b.N {
				ctx := context.Background()
				s, err := newSession(backend, newStore(), config, 1, room)
				if err != nil {
					b.Fatal(err)
				}
				greedy := kvq.Generation{MaxTokens: steps + 2, Block: 1, Pick: sampleWith(sample.StrategyGreedy, 1, 0, 0)}
				prefill := func() {
					s.Reset()
					if _, err := s.Prefill(ctx, [][]int32{promptOf(prompt)}); err != nil {
						b.Fatal(err)
					}
				}
				var took []time.Duration
				begin := time.Now()
				prefill()
				for _, err := range s.Stream(ctx, greedy) {
					if err != nil {
						b.Fatal(err)
					}
					took, begin = append(took, time.Since(begin)), time.Now()
				}
				prefill()
				greedy.Block = steps + 1
				for fresh, err := range s.Stream(ctx, greedy) {
					if err != nil {
						b.Fatal(err)
					}
					if len(fresh[0]) > 1 { // the loop's
						b.ReportMetric(float64(time.Since(begin).Microseconds())/1000/float64(len(fresh[0])), "loop-ms")
					}
					begin = time.Now()
				}
				report(b, took)
				s.Finalize()
			}
		})
	}
}
