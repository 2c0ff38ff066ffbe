package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// goldenRow is what transformers measured.
type goldenRow struct {
	Name       string  `json:"name"`
	Perplexity float64 `json:"ppl"`
	KL         float64 `json:"kl_vs_full"`
	Same       float64 `json:"top1_agree"`
}

// readGoldens reads ppl.json of a folder, by name.
func readGoldens(dir string) (map[string]goldenRow, error) {
	data, err := os.ReadFile(filepath.Join(dir, "ppl.json"))
	if err != nil {
		return nil, usererr.New("--golden: %w", err)
	}
	var file struct {
		Rows []goldenRow `json:"rows"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, usererr.New("--golden %s: ppl.json: %w", dir, err)
	}
	rows := map[string]goldenRow{}
	for _, r := range file.Rows {
		rows[r.Name] = r
	}
	return rows, nil
}

// How far a row may be from its golden. Above lostKL, in nats, the model no longer knows its text,
// and the order in which a sum is rounded moves its perplexity by percents (quanto 2 bit, KL 0.80:
// 30.8 there, 30.8 to 31.4 here on GPUs, where XLA chooses among products anew in each process; in
// groups of 64, KL 2.4: 154.2 there, 157.2 to 166.4 here): there the KL alone is held.
const perplexityWithin, klWithin, lostKL = 0.01, 0.10, 0.5

// near tells whether means are as close to a golden as they have to be.
func (g goldenRow) near(m means) bool {
	return math.Abs(m.kl/g.KL-1) <= klWithin && (g.KL > lostKL || math.Abs(m.perplexity/g.Perplexity-1) <= perplexityWithin)
}
