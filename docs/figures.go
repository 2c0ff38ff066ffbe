// Package docs holds figures of this folder that the command line shows.
package docs

import (
	_ "embed"
	"encoding/json"
)

// presets is written by ./scripts/quality, from the rows in quality.jsonl.
//
//go:embed presets.json
var presets []byte

// Presets is what the named caches cost in quality, on one model, on texts that nobody tuned on.
type Presets struct {
	Model  string         `json:"model"`
	Device string         `json:"device"`
	Date   string         `json:"date"`    // or the first and the last day
	Code   string         `json:"version"` // of the code that was measured: a hash
	Texts  []string       `json:"texts"`   // their names in docs/texts
	Tokens int            `json:"tokens"`  // scored in all of them
	Caches []PresetFigure `json:"caches"`
}

// PresetFigure is one cache's row.
type PresetFigure struct {
	Name      string  `json:"name"`
	KL        float64 `json:"kl_mean"`        // from full precision, in nats
	Agreement float64 `json:"top1_agreement"` // share of tokens where both find the same most likely
}

// PresetFigures reads the figures.
func PresetFigures() (Presets, error) {
	var p Presets
	err := json.Unmarshal(presets, &p)
	return p, err
}

// Of returns the row of that name.
func (p Presets) Of(name string) (PresetFigure, bool) {
	for _, c := range p.Caches {
		if c.Name == name {
			return c, true
		}
	}
	return PresetFigure{}, false
}
