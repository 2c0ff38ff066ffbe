package evaluate

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/golden"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// tiny is a random model of the goldens in float32, of two layers with grouped heads. All tests
// share it.
func tiny(t testing.TB) *llama.Model {
	t.Helper()
	backend, dir := testbackend.XLA(t), golden.Dir(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.model == nil {
		files, err := llama.Open(filepath.Join(dir, "tiny-llama2-gqa"))
		if err != nil {
			t.Fatal(err)
		}
		if shared.model, err = files.Load(backend, llama.LoadOptions{DType: dtypes.Float32, Weights: llama.PlainWeights}); err != nil {
			t.Fatal(err)
		}
	}
	return shared.model
}

var shared struct {
	sync.Mutex
	model      *llama.Model
	generators map[kvq.Config]*llama.Generator
}

// generator is shared too, with what it has compiled.
func generator(t testing.TB, cache kvq.Config) *llama.Generator {
	t.Helper()
	model := tiny(t)
	shared.Lock()
	defer shared.Unlock()
	g := shared.generators[cache]
	if g == nil {
		var err error
		if g, err = llama.NewGenerator(model, cache); err != nil {
			t.Fatal(err)
		}
		if shared.generators == nil {
			shared.generators = map[kvq.Config]*llama.Generator{}
		}
		shared.generators[cache] = g
	}
	return g
}

// quanto is a cache that codes some of longTexts at once.
var quanto = kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 4}

// longTexts are made-up texts of 90 and 61 tokens: several blocks of scores, the second text ending
// inside of one.
func longTexts() [][]tokenizer.Token {
	texts := make([][]tokenizer.Token, 2)
	for row, n := range []int{90, 61} {
		for i := range n {
			texts[row] = append(texts[row], tokenizer.Token(3+(row*53+i*i*7)%250))
		}
	}
	return texts
}

// hostScores computes in float64 what Scores should be, from logits of a whole text fed token by
// token.
func hostScores(test, reference [][]float32, tokens []tokenizer.Token) Scores {
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

// Scores made on the device equal those computed on the host from the logits of forced generation,
// text by text.
func TestScoreEqualsHost(t *testing.T) {
	testlane.Slow(t, "compiles the evaluation with two caches")
	full, tested := generator(t, kvq.Config{}), generator(t, quanto)
	texts := longTexts()
	const prefill = 10
	var told []int
	got, err := Score(context.Background(), tested, texts, Options{Reference: full, Prefill: prefill, Progress: func(done, total int) error {
		if total != 80 {
			t.Errorf("%d tokens to score, want 80", total)
		}
		told = append(told, done)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 4 || told[0] != 1 || told[3] != 80 { // 1, then blocks of 32
		t.Errorf("progress %v", told)
	}
	for row, text := range texts {
		force := func(g *llama.Generator) [][]float32 {
			r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: [][]tokenizer.Token{text[:prefill]}},
				llama.GenerateConfig{TeacherForced: [][]tokenizer.Token{text[prefill:]}, KeepLogits: true})
			if err != nil {
				t.Fatal(err)
			}
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
		// one close call may go the other way
		if math.Abs(s.Agreement()-want.Agreement()) > 1.5/float64(len(s.Top1)) {
			t.Errorf("text %d: agreement %g, want %g", row, s.Agreement(), want.Agreement())
		}
		if s.MeanKL() < 1e-4 {
			t.Errorf("text %d: mean divergence %g: the cache under test is not quantized", row, s.MeanKL())
		}
	}
	if all := got.All(); len(all.NLL) != 80+51 {
		t.Errorf("%d scores in all, want 131", len(all.NLL))
	}
	if got.Reference[0].KL != nil || len(got.Reference[1].NLL) != 51 {
		t.Errorf("reference scores %+v, want likelihoods alone", got.Reference[1])
	}
}

// A cache compared with itself does not diverge, not even by rounding.
func TestScoreAgainstItself(t *testing.T) {
	g := generator(t, kvq.Config{})
	got, err := Score(context.Background(), g, longTexts(), Options{Reference: g, Prefill: 10})
	if err != nil {
		t.Fatal(err)
	}
	all := got.All()
	if all.MeanKL() > 1e-9 || all.Agreement() != 1 {
		t.Errorf("divergence %g and agreement %g, want 0 and 1", all.MeanKL(), all.Agreement())
	}
	if a, b := all.MeanNLL(), got.AllReference().MeanNLL(); a != b {
		t.Errorf("mean likelihood %g, the reference's %g", a, b)
	}
}

// sharded is tiny over several devices.
func sharded(t testing.TB, devices int) *llama.Model {
	t.Helper()
	if devices == 1 {
		return tiny(t)
	}
	backend, dir := testbackend.XLA(t), golden.Dir(t)
	if has := backend.NumDevices(); has < devices {
		t.Skipf("%d devices wanted, XLA shows %d", devices, has)
	}
	files, err := llama.Open(filepath.Join(dir, "tiny-llama2-gqa"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(backend, llama.LoadOptions{DType: dtypes.Float32, Weights: llama.PlainWeights, Devices: devices})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Finalize)
	return m
}

// Scores on two devices are those of one.
func TestDevicesScore(t *testing.T) {
	testlane.Slow(t, "compiles for several devices")
	one := generator(t, kvq.Config{})
	two, err := llama.NewGenerator(sharded(t, 2), kvq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer two.Finalize()
	got, err := Score(context.Background(), two, longTexts(), Options{Prefill: 10})
	if err != nil {
		t.Fatal(err)
	}
	want, err := Score(context.Background(), one, longTexts(), Options{Reference: one, Prefill: 10})
	if err != nil {
		t.Fatal(err)
	}
	for row := range want.Rows {
		if d := worst(t, got.Rows[row].NLL, want.Rows[row].NLL); d > 1e-4 {
			t.Errorf("text %d: likelihoods differ by up to %g, want at most 1e-4", row, d)
		}
	}
}

// A cache that goes through a call that scores is held once: XLA writes the new one in its place,
// on each of several devices too.
func TestScoringHoldsTheCacheOnce(t *testing.T) {
	for _, devices := range []int{1, 2} {
		m := sharded(t, devices)
		for _, config := range []kvq.Config{{}, {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 16}} {
			g, err := llama.NewGenerator(m, config)
			if err != nil {
				t.Fatal(err)
			}
			session, err := engine.NewSession(g, [][]tokenizer.Token{{1, 2}, {3, 4}}, 200)
			if err != nil {
				t.Fatal(err)
			}
			program := startLoop(session, scoreAlone, m.Config().VocabSize)
			if err := program.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
			plan := session.Plan()
			shape := plan.Shape()
			if shape.KVHeads != 2/devices {
				t.Errorf("%d heads on each of %d devices, want %d", shape.KVHeads, devices, 2/devices)
			}
			needs, err := program.Needs()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := needs.Reused, plan.Memory().Total(); shape.Capacity != 256 || got != want {
				t.Errorf("%s on %d devices: %d bytes of a cache of %d slots written in place, want all %d of 256", config, devices, got, shape.Capacity, want)
			}
			g.Finalize()
		}
	}
}

func TestBadTexts(t *testing.T) {
	g := generator(t, kvq.Config{})
	for want, in := range map[string]struct {
		texts   [][]tokenizer.Token
		prefill int
	}{
		"no text to score": {nil, 4},
		"-1 tokens to go in at once, want at least 1": {longTexts(), -1},
		"text 1 has 4 tokens, want more than the 4":   {[][]tokenizer.Token{{1, 2, 3, 4, 5}, {1, 2, 3, 4}}, 4},
		"text 0 has 600 tokens, the model reads at":   {[][]tokenizer.Token{make([]tokenizer.Token, 600)}, 4},
		"text 0 has token id 256 at place 1, want 0 ": {[][]tokenizer.Token{{1, 256, 3}}, 1},
	} {
		_, err := Score(context.Background(), g, in.texts, Options{Prefill: in.prefill})
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, llama.ErrInput) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Score(ctx, g, longTexts(), Options{Prefill: 10, Progress: func(int, int) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// worst is the largest difference of two lists of one length; infinite where one holds NaN.
func worst(t testing.TB, got, want []float32) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var most float64
	for i := range got {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if math.IsNaN(d) {
			return math.Inf(1)
		}
		most = max(most, d)
	}
	return most
}
