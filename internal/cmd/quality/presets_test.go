package main

import (
	"os"
	"testing"

	"github.com/kvqbook/kvqbook/docs"
	"github.com/kvqbook/kvqbook/kvq"
)

// What kvq presets shows is what docs/quality.jsonl has: nothing is copied by hand.
func TestPresetFiguresAreTheMeasuredOnes(t *testing.T) {
	s, err := openStore("../../../docs/quality.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	g, ok := s.newestRun()
	if !ok {
		t.Fatal("docs/quality.jsonl has no run")
	}
	want, err := g.presetFigures()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/presets.json")
	if err != nil || string(got) != string(want) {
		t.Errorf("docs/presets.json is not what ./scripts/quality --write makes of docs/quality.jsonl (beside another --out): %v\n%s\nwant\n%s", err, got, want)
	}
	figures, err := docs.PresetFigures()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(kvq.Presets(), tutorialName) {
		f, ok := figures.Of(name)
		if !ok || !(f.KL > 0) || !(f.Agreement > 0.5) || f.Agreement > 1 {
			t.Errorf("%s: %+v, %t", name, f, ok)
		}
		// The same by hand: KL over all tokens of the newest row of that name.
		var sum, tokens float64
		for _, r := range s.list {
			if r.Name != name || r.Keys != nil {
				continue
			}
			sum, tokens = 0, 0 // a newer row
			for _, one := range r.Scores {
				if one.Set == setUnseen {
					sum, tokens = sum+one.KL*float64(one.Tokens), tokens+float64(one.Tokens)
				}
			}
		}
		if d := f.KL - sum/tokens; d > 1e-12 || d < -1e-12 {
			t.Errorf("%s: KL %g, its rows have %g", name, f.KL, sum/tokens)
		}
	}
	if _, ok := figures.Of("quanto 2 bit"); ok || figures.Tokens == 0 || len(figures.Texts) == 0 || figures.Model == "" || figures.Date == "" {
		t.Errorf("%+v", figures)
	}
}
