package llama

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// longTexts are made-up texts of 90 and 61 tokens: several blocks of scores, the second text ending inside of one.
func longTexts() [][]int32 {
	texts := make([][]int32, 2)
	for row, n := range []int{90, 61} {
		for i := range n {
			texts[row] = append(texts[row], int32(3+(row*53+i*i*7)%250))
		}
	}
	return texts
}

// hostScores computes in float64 what Scores should be, from logits of a whole text fed token by token.
func hostScores(test, reference [][]float32, tokens []int32) Scores {
	logSoftmax := func(x []float32) []float64 {
		var sum float64
		out := make([]float64, len(x))
		for _, v := range x {
			sum += math.Exp(float64(v))
		}
		for i, v := range x {
			out[i] = float64(v) - math.Log(sum)
		}
		return out
	}
	best := func(x []float64) (at int) {
		for i := range x {
			if x[i] > x[at] {
				at = i
			}
		}
		return at
	}
	var s Scores
	for i, token := range tokens {
		q, p := logSoftmax(test[i]), logSoftmax(reference[i])
		var kl float64
		for j := range p {
			kl += math.Exp(p[j]) * (p[j] - q[j])
		}
		s.NLL, s.KL, s.Top1 = append(s.NLL, float32(-q[token])), append(s.KL, float32(kl)), append(s.Top1, best(p) == best(q))
	}
	return s
}

// Scores made on the device equal those computed on the host from the logits of forced generation, text by text.
func TestEvaluateEqualsHost(t *testing.T) {
	full, tested := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{}), tinyGenerator(t, "tiny-llama2-gqa", caches["quanto"])
	texts := longTexts()
	const prefill = 10
	var told []int
	got, err := Evaluate(context.Background(), full, tested, texts, prefill, func(done, total int) error {
		if total != 80 {
			t.Errorf("%d tokens to score, want 80", total)
		}
		told = append(told, done)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 4 || told[0] != 1 || told[3] != 80 { // 1, then blocks of 32
		t.Errorf("progress %v", told)
	}
	for row, text := range texts {
		force := func(g *Generator) [][]float32 {
			r := mustGenerate(t, g, [][]int32{text[:prefill]}, nil, GenerateConfig{Forced: [][]int32{text[prefill:]}, KeepLogits: true})
			var out [][]float32
			for _, step := range r.Logits {
				out = append(out, step[0])
			}
			return out
		}
		want := hostScores(force(tested), force(full), text[prefill:])
		s := got.Rows[row]
		if len(s.NLL) != len(text)-prefill || len(s.Top1) != len(s.NLL) {
			t.Fatalf("text %d: %d and %d scores, want %d", row, len(s.NLL), len(s.Top1), len(text)-prefill)
		}
		if d := worst(t, s.NLL, want.NLL); d > 2e-4 {
			t.Errorf("text %d: likelihoods differ by up to %g, want at most 2e-4", row, d)
		}
		if d := worst(t, s.KL, want.KL); d > 2e-4 {
			t.Errorf("text %d: divergences differ by up to %g, want at most 2e-4", row, d)
		}
		if math.Abs(s.Agreement()-want.Agreement()) > 1.5/float64(len(s.Top1)) { // one close call may go the other way
			t.Errorf("text %d: agreement %g, want %g", row, s.Agreement(), want.Agreement())
		}
		if Mean(s.KL) < 1e-4 {
			t.Errorf("text %d: mean divergence %g: the cache under test is not quantized", row, Mean(s.KL))
		}
	}
	if all := Join(got.Rows); len(all.NLL) != 80+51 {
		t.Errorf("%d scores in all, want 131", len(all.NLL))
	}
	if got.Reference[0].KL != nil || len(got.Reference[1].NLL) != 51 {
		t.Errorf("reference scores %+v, want likelihoods alone", got.Reference[1])
	}
}

// A cache compared with itself does not diverge, not even by rounding.
func TestEvaluateAgainstItself(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	got, err := Evaluate(context.Background(), g, g, longTexts(), 10, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := Join(got.Rows)
	if Mean(all.KL) > 1e-9 || all.Agreement() != 1 {
		t.Errorf("divergence %g and agreement %g, want 0 and 1", Mean(all.KL), all.Agreement())
	}
	if a, b := Mean(all.NLL), Mean(Join(got.Reference).NLL); a != b {
		t.Errorf("mean likelihood %g, the reference's %g", a, b)
	}
}

func TestBadEvaluations(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	for want, in := range map[string]struct {
		texts   [][]int32
		prefill int
	}{
		"no text to score":                            {nil, 4},
		"0 tokens to go in at once, want at least 1":  {longTexts(), 0},
		"text 1 has 4 tokens, want more than the 4":   {[][]int32{{1, 2, 3, 4, 5}, {1, 2, 3, 4}}, 4},
		"text 0 has 600 tokens, the model reads at":   {[][]int32{make([]int32, 600)}, 4},
		"text 0 has token id 256 at place 1, want 0 ": {[][]int32{{1, 256, 3}}, 1},
	} {
		_, err := Evaluate(context.Background(), nil, g, in.texts, in.prefill, nil)
		if err == nil || !strings.HasPrefix(err.Error(), want) || !usererr.Is(err) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Evaluate(ctx, nil, g, longTexts(), 10, func(int, int) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
