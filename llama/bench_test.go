package llama

import (
	"context"
	"fmt"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// BenchmarkDecode is one turn of the decode loop on the small model, after a prompt of 256 tokens a
// row.
func BenchmarkDecode(b *testing.B) {
	testbackend.XLA(b)
	m := mustModel(b, smallModel(b), dtypes.Float32)
	defer m.Finalize()
	for _, c := range []struct {
		name  string
		batch int
		cache kvq.Config
	}{
		{"full/batch1", 1, kvq.Config{}},
		{"full/batch2", 2, kvq.Config{}},
		{"quanto4/batch1", 1, kvq.Tutorial()},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := mustGenerator(b, m, c.cache)
			ids := make([][]int32, c.batch)
			for i := range ids {
				ids[i] = make([]int32, 256)
				for j := range ids[i] {
					ids[i][j] = int32(100 + (i*31+j*97)%20000)
				}
			}
			var last Timing
			for b.Loop() {
				r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: ids}, GenerateConfig{MaxNewTokens: 129, EOS: []tokenizer.Token{}, BlockSize: generate.MaxBlock})
				if err != nil {
					b.Fatal(err)
				}
				if r.Timing.Compile > last.Compile {
					b.Logf("compile %.2fs", r.Timing.Compile.Seconds())
				}
				last = r.Timing
			}
			b.ReportMetric(1000/last.StepsPerSecond(), "ms/step")
			b.ReportMetric(last.Prefill.Seconds(), "prefill-s")
		})
	}
}

// BenchmarkDecodeStep is one token over a made-up cache, so that a long context need not be read
// first.
func BenchmarkDecodeStep(b *testing.B) {
	testbackend.XLA(b)
	m := mustModel(b, smallModel(b), dtypes.Float32)
	defer m.Finalize()
	const steps = 16
	for name, cache := range map[string]kvq.Config{"full": {}, "quanto4": kvq.Tutorial()} {
		for _, tokens := range []int{512, 2048} {
			b.Run(fmt.Sprintf("%s/tokens%d", name, tokens), func(b *testing.B) {
				g := mustGenerator(b, m, cache)
				t, err := g.newDecodeTimer(context.Background(), 1, tokens, steps, false)
				if err != nil {
					b.Fatal(err)
				}
				defer t.Finalize()
				for b.Loop() {
					if _, err := t.Run(context.Background()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e3/float64(b.N*steps), "ms/token")
			})
		}
	}
}

// BenchmarkPrefill is a prompt of 512 tokens up to its first new token.
func BenchmarkPrefill(b *testing.B) {
	testbackend.XLA(b)
	m := mustModel(b, smallModel(b), dtypes.Float32)
	defer m.Finalize()
	ids := make([]int32, 512)
	for j := range ids {
		ids[j] = int32(100 + j*97%20000)
	}
	for name, cache := range map[string]kvq.Config{"full": {}, "quanto4": kvq.Tutorial()} {
		b.Run(name, func(b *testing.B) {
			g := mustGenerator(b, m, cache)
			read := func() {
				if _, err := g.Generate(context.Background(), tokenizer.Batch{IDs: [][]int32{ids}}, GenerateConfig{MaxNewTokens: 1, EOS: []tokenizer.Token{}}); err != nil {
					b.Fatal(err)
				}
			}
			read() // compiles
			for b.Loop() {
				read()
			}
		})
	}
}
