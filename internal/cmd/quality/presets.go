package main

import (
	"encoding/json"

	"github.com/kvqbook/kvqbook/docs"
)

// presetFigures are what kvq presets shows of a run.
func (g run) presetFigures() ([]byte, error) {
	out := docs.Presets{Model: g.base.Model, Device: g.base.Device, Code: g.base.Version}
	var shown run
	for _, s := range keyCaches() {
		r, ok := g.find(job{step: s})
		m := mean(r.Scores, setUnseen)
		if !ok || m.tokens == 0 {
			continue
		}
		shown.results = append(shown.results, r)
		out.Tokens, out.Texts = m.tokens, nil
		for _, t := range r.Scores {
			if t.Set == setUnseen {
				out.Texts = append(out.Texts, t.Text)
			}
		}
		out.Caches = append(out.Caches, docs.PresetFigure{Name: s.name, KL: m.kl, Agreement: m.same})
	}
	out.Date = shown.dates()
	data, err := json.MarshalIndent(out, "", "  ")
	return append(data, '\n'), err
}
