package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// measured makes a stored row of a cache: two texts of the goldens and an unseen one.
func measured(t *testing.T, c kvq.Config, nll, kl float64) result {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return result{key: key{string(config), "texts", "model.gguf", "a GPU", "v1"}, Date: "2026-11-25", Bits: 5, Scores: []textScore{
		{setGolden, "long", 300, nll, 2, kl, 0.9},
		{setGolden, "short", 100, nll + 0.4, 2.4, kl, 0.5},
		{setUnseen, "new", 100, 3, 3, 2 * kl, 0.75},
	}}
}

// Means are over tokens, not over texts.
func TestMeansCountTokens(t *testing.T) {
	m := mean(measured(t, kvq.Tutorial(), 2, 0.01).Scores, setGolden)
	if m.tokens != 400 || math.Abs(m.perplexity-math.Exp(2.1)) > 1e-12 || math.Abs(m.full-math.Exp(2.1)) > 1e-12 || math.Abs(m.kl-0.01) > 1e-12 || math.Abs(m.same-0.8) > 1e-12 {
		t.Errorf("%+v", m)
	}
}

func TestNearAGolden(t *testing.T) {
	g, lost := goldenRow{"", 10, 0.1, 1}, goldenRow{"", 154, 2.4, 1}
	for _, c := range []struct {
		golden         goldenRow
		perplexity, kl float64
		want           bool
	}{
		{g, 10, 0.1, true}, {g, 10.09, 0.1, true}, {g, 10.11, 0.1, false}, {g, 9.89, 0.1, false}, {g, 10, 0.109, true}, {g, 10, 0.111, false}, {g, 10, 0.089, false},
		{g, math.NaN(), 0.1, false}, {g, 10, math.NaN(), false},
		{lost, 160, 2.5, true}, {lost, 154, 2.7, false}, {lost, 154, math.NaN(), false},
	} {
		if got := c.golden.near(means{perplexity: c.perplexity, kl: c.kl}); got != c.want {
			t.Errorf("perplexity %g, KL %g near %+v: %t", c.perplexity, c.kl, c.golden, got)
		}
	}
}

// One run is written; rows of another device or version are not mixed in, a gap is named, a golden
// that is missed is an error.
func TestDocument(t *testing.T) {
	dir := t.TempDir()
	s := &store{path: filepath.Join(dir, "quality.jsonl")}
	preset, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	hqq := kvq.Tutorial()
	hqq.Backend = kvq.HQQ
	perChannel := kvq.Tutorial()
	perChannel.AxisKey = kvq.PerChannel
	old := measured(t, kvq.Tutorial(), 7, 7)
	old.Version = "v0"
	keys := measured(t, preset, 0, 0)
	keys.Texts, keys.Scores, keys.Keys = "keys", nil, &keyScore{Length: 1024, Trials: 40, Found: 31, Tokens: 200, Right: 190}
	s.list = []result{old, keys, measured(t, hqq, 2, 0.5), measured(t, perChannel, 2, 0.5), measured(t, preset, 2, 0.0005), measured(t, kvq.Tutorial(), 2, 0.01)}
	g, ok := s.newestRun()
	if !ok || len(g.results) != 5 || g.base.Version != "v1" {
		t.Fatalf("the newest run is %+v", g)
	}
	perplexity := math.Exp(2.1)
	goldens := map[string]any{"rows": []goldenRow{{"quanto_b4_g32_r64", perplexity, 0.0105, 0.8}, {"hqq_b4_g32_r64_ax1", perplexity, 0.4, 0.8}, {"quanto_b4_g32_r64_km1_v0", perplexity, 0.4, 0.8}}}
	data, err := json.Marshal(goldens)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ppl.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "quality.md")
	err = write(g, options{golden: dir, out: out})
	if err == nil || usererr.Is(err) || !strings.Contains(err.Error(), ": quanto 4 bit keys per channel (") {
		t.Errorf("goldens that are missed gave %v, want a failure that names the row of quanto alone", err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"model.gguf", "a GPU", "version v1", "2026-11-25",
		"| tutorial | 8.166 | 8.166 | +0.00 % | 0.01000 | 0.01050 | -4.8 % | 80.0 % | 80.0 % | yes |",
		"| hqq 4 bit | 8.166 | 8.166 | +0.00 % | 0.50000 | 0.40000 | +25.0 % | 80.0 % | 80.0 % | no |",
		"2 texts: long, short; 400 tokens scored. Full precision: perplexity 8.166.", "1 texts: new; 100 tokens scored.",
		"| balanced | 5.000 | 8.166 | +0.00 % | 0.00050 | 0.050 | 80.0 % |",
		"| tokens | keys | full precision | tutorial | smallest | balanced | quality | lower | lowest |", "| 1024 | 40 |  |  |  | 31 (95 %) |  |  |  |",
		"Not measured in this run: ", "passkey 1024 lowest", "](quality.svg)",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	picture, err := os.ReadFile(filepath.Join(dir, "quality.svg"))
	if err != nil || !strings.Contains(string(picture), "balanced") || !strings.Contains(string(picture), "</svg>") {
		t.Errorf("picture of %d bytes, %v", len(picture), err)
	}
	// All goldens met: no error.
	if err := write(g, options{golden: "none", out: out}); err != nil {
		t.Error(err)
	}
}
