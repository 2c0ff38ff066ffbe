package evaluate

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func sameScores(a, b Scores) bool {
	return slices.Equal(a.NLL, b.NLL) && slices.Equal(a.KL, b.KL) && slices.Equal(a.Top1, b.Top1)
}

// Scores against kept predictions are those against the reference itself, bit for bit, for several
// caches at once.
func TestKeptPredictionsAreTheReference(t *testing.T) {
	full, tested := generator(t, kvq.Config{}), generator(t, quanto)
	ctx, texts := context.Background(), longTexts()
	kept, err := Keep(ctx, full, texts, Options{Prefill: 10})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Score(ctx, tested, texts, Options{Reference: full, Prefill: 10})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			got, err := Score(ctx, tested, texts, Options{Kept: kept, Prefill: 10})
			if err != nil {
				t.Error(err)
				return
			}
			for row := range want.Rows {
				if len(got.Rows[row].KL) == 0 || !sameScores(got.Rows[row], want.Rows[row]) || !sameScores(got.Reference[row], want.Reference[row]) {
					t.Errorf("text %d: not the scores of the reference itself", row)
				}
			}
		})
	}
	group.Wait()

	other := longTexts()
	other[1][60]++
	for want, o := range map[string]Options{
		"10 tokens went in at once, now 9": {Kept: kept, Prefill: 9},
		"both Reference and Kept":          {Kept: kept, Reference: full, Prefill: 10},
	} {
		if _, err := Score(ctx, tested, texts, o); !usererr.Is(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := Score(ctx, tested, other, Options{Kept: kept, Prefill: 10}); !usererr.Is(err) || !strings.Contains(err.Error(), "other texts") {
		t.Errorf("other texts gave %v", err)
	}
	if _, err := Keep(ctx, full, texts, Options{Kept: kept, Prefill: 10}); !usererr.Is(err) {
		t.Errorf("kept predictions with a reference gave %v", err)
	}
	kept.Free()
	kept.Free()
	if _, err := Score(ctx, tested, texts, Options{Kept: kept, Prefill: 10}); !usererr.Is(err) || !strings.Contains(err.Error(), "freed") {
		t.Errorf("freed predictions gave %v", err)
	}
}

// A cache of the final size from the start reads a text of more than 1,024 tokens as one that
// grows, and has the size of the text.
func TestWholeCacheReadsAsOneThatGrows(t *testing.T) {
	testlane.OnlyAll(t, "compiles for two sizes of cache")
	dir := t.TempDir()
	if err := randomllama.Write(dir, randomllama.Shape{Layers: 2, Hidden: 64, Intermediate: 64, Heads: 2, KVHeads: 1, Vocabulary: 256, Context: 2048}, 1, 3); err != nil {
		t.Fatal(err)
	}
	files, err := llama.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(testbackend.XLA(t), llama.LoadOptions{DType: dtypes.Float32, Weights: llama.PlainWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	g, err := llama.NewGenerator(m, quanto)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Finalize()
	text := make([]tokenizer.Token, 1500)
	for i := range text {
		text[i] = tokenizer.Token(3 + i*i*7%250)
	}
	score := func(whole bool) *Result {
		r, err := Score(context.Background(), g, [][]tokenizer.Token{text}, Options{Prefill: 64, Whole: whole})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	growing, whole := score(false), score(true)
	if growing.Cache != whole.Cache {
		t.Errorf("a cache of %+v at the end, one that grew has %+v", whole.Cache, growing.Cache)
	}
	if d := worst(t, whole.Rows[0].NLL, growing.Rows[0].NLL); d > 1e-4 {
		t.Errorf("likelihoods differ by up to %g, want at most 1e-4", d)
	}
}
