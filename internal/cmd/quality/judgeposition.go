package main

import (
	"context"
	"math"

	judging "github.com/kvqbook/kvqbook/internal/judge"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
)

// binScore is the mean over the tokens at positions From to To of all texts, To not among them.
type binScore struct {
	From    int     `json:"from"`
	To      int     `json:"to"`
	Tokens  int     `json:"tokens"`
	KL      float64 `json:"kl"`       // from full precision, in nats
	KLError float64 `json:"kl_error"` // its standard error, over stretches of 64 tokens
	NLL     float64 `json:"nll"`
	FullNLL float64 `json:"full_nll"`
	Same    float64 `json:"top1"`
}

// stretch is how many neighbours are one value for a standard error.
const stretch = 64

// byPosition scores the long texts.
func (b *bench) byPosition(ctx context.Context, g *llama.Generator, r *result) error {
	kept, err := b.judge.kept()
	if err != nil {
		return err
	}
	rows := kept.Rows
	if g.CacheConfig().Quantized() {
		e, err := evaluate.Score(ctx, g, b.judge.long, evaluate.Options{Kept: kept, Prefill: prefill, Whole: true})
		if err != nil {
			return err
		}
		rows, r.Compile = e.Rows, e.Timing.Compile.Seconds()
	}
	r.Judged.Bins = bins(rows, kept.Rows, b.judge.edges)
	return nil
}

// bins averages scores by position. Those of full precision itself have neither KL nor Top1: it
// does not differ from itself.
func bins(rows, full []evaluate.Scores, edges []int) (list []binScore) {
	for i, to := range edges[1:] {
		bin := binScore{From: edges[i], To: to}
		var part, reference evaluate.Scores
		var stretches []float64
		for row := range rows {
			from, to := bin.From-edges[0], min(to-edges[0], len(rows[row].NLL))
			if from >= to {
				continue
			}
			part.NLL = append(part.NLL, rows[row].NLL[from:to]...)
			reference.NLL = append(reference.NLL, full[row].NLL[from:to]...)
			if rows[row].KL != nil {
				part.KL, part.Top1 = append(part.KL, rows[row].KL[from:to]...), append(part.Top1, rows[row].Top1[from:to]...)
				stretches = append(stretches, judging.Stretches(rows[row].KL[from:to], stretch)...)
			}
		}
		bin.Tokens, bin.NLL, bin.FullNLL = len(part.NLL), part.MeanNLL(), reference.MeanNLL()
		if bin.Same = 1; part.KL != nil {
			bin.KL, bin.Same = part.MeanKL(), part.Agreement()
			if _, bin.KLError = judging.Mean(stretches); math.IsNaN(bin.KLError) { // one stretch: JSON has no NaN
				bin.KLError = 0
			}
		}
		if bin.Tokens > 0 {
			list = append(list, bin)
		}
	}
	return list
}
