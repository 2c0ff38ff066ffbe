package main

import (
	"context"
	"math"
	"slices"

	judging "github.com/kvqbook/kvqbook/internal/judge"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// How tokens are sampled. Greedy texts have a top_k of 1: the same compiled graph.
const temperature, topK = 0.8, 50

// writtenText is one text that a cache wrote, after Prompt. NLLs are under the full-precision
// cache, in nats a token. Before is in front of Parted, after is from there on, for KL from one
// token later: the divergence where two texts part was picked for being large.
type writtenText struct {
	Prompt  int  `json:"prompt"`
	Sampled bool `json:"sampled,omitempty"`
	Seed    int  `json:"seed,omitempty"` // of sampled texts: which of the random numbers

	Tokens   int     `json:"tokens"`
	Parted   int     `json:"parted"`   // tokens that full precision writes as well, with the same random numbers
	Repeated float64 `json:"repeated"` // share of 4-grams that stand in the text before
	Longest  int     `json:"longest"`  // tokens of the longest part that comes again

	NLL       float64 `json:"nll"`
	NLLAfter  float64 `json:"nll_after,omitempty"`
	FullAfter float64 `json:"full_after,omitempty"` // of what full precision wrote from Parted on
	KLBefore  float64 `json:"kl_before,omitempty"`
	KLAfter   float64 `json:"kl_after,omitempty"`
}

// writing is what a cache wrote: greedy texts of all prompts, then sampled ones of the first.
type writing struct {
	texts   [][]tokenizer.Token // without the prompts
	prompts []int               // of each text
	greedy  int                 // so many texts first
	scores  []evaluate.Scores   // of the written tokens, by the cache that wrote them
	seconds float64             // compiling
}

// draft lists the prompts of the sampled texts, one a row: each of the first prompts, with as many
// random numbers as there are seeds.
func (j *judgement) draft() (list []int) {
	for row := range j.prompts {
		list = append(list, row/j.seeds)
	}
	return list
}

// write has a cache write all texts. The random numbers of a row depend on seed, row and token
// alone, so every cache has the same.
func (b *bench) write(ctx context.Context, g *llama.Generator) (*writing, error) {
	j := b.judge
	w := &writing{greedy: len(j.prompts)}
	config := llama.GenerateConfig{MaxNewTokens: j.newTokens, MinNewTokens: j.newTokens, DoSample: true, Temperature: temperature}
	for _, k := range []int{1, topK} {
		var batch tokenizer.Batch
		for row := range j.prompts {
			prompt := row
			if k > 1 {
				prompt = j.draft()[row]
			}
			w.prompts = append(w.prompts, prompt)
			batch.IDs = append(batch.IDs, j.prompts[prompt])
		}
		config.TopK = k
		r, err := g.Generate(ctx, batch, config)
		if err != nil {
			return nil, err
		}
		w.texts = append(w.texts, r.Tokens...)
		w.seconds += r.Timing.Compile.Seconds()
	}
	if g != b.full {
		return w, nil
	}
	e, err := evaluate.Score(ctx, g, w.whole(j), evaluate.Options{Prefill: len(j.prompts[0])})
	if err != nil {
		return nil, err
	}
	w.scores = e.Rows
	return w, nil
}

// whole are the texts behind their prompts.
func (w *writing) whole(j *judgement) (list [][]tokenizer.Token) {
	for i, text := range w.texts {
		list = append(list, slices.Concat(j.prompts[w.prompts[i]], text))
	}
	return list
}

// free has a cache write, and scores what it wrote by the full-precision cache.
func (b *bench) free(ctx context.Context, g *llama.Generator, r *result) error {
	full, err := b.judge.written()
	if err != nil {
		return err
	}
	if !g.CacheConfig().Quantized() {
		r.Compile = full.seconds
		r.Judged.Texts = compareWritten(b.judge, full, full, full.scores, nil)
		return nil
	}
	w, err := b.write(ctx, g)
	if err != nil {
		return err
	}
	e, err := evaluate.Score(ctx, g, w.whole(b.judge), evaluate.Options{Reference: b.full, Prefill: len(b.judge.prompts[0])})
	if err != nil {
		return err
	}
	r.Compile = w.seconds + e.Timing.Compile.Seconds()
	r.Judged.Texts = compareWritten(b.judge, w, full, e.Reference, e.Rows)
	return nil
}

// compareWritten measures texts beside those of full precision: byFull are their scores by the
// full-precision cache, own those by the cache that wrote them, nil for full precision itself.
func compareWritten(j *judgement, w, full *writing, byFull, own []evaluate.Scores) (list []writtenText) {
	for i, text := range w.texts {
		t := writtenText{Prompt: w.prompts[i], Sampled: i >= w.greedy, Tokens: len(text), Parted: judging.Parting(text, full.texts[i])}
		if t.Sampled {
			t.Seed = (i - w.greedy) % j.seeds
		}
		t.Repeated, t.Longest = judging.Repeated(text, 4), judging.LongestRepeat(text)
		nll := byFull[i].NLL
		t.NLL = average(nll)
		if t.Parted < len(text) {
			t.NLLAfter, t.FullAfter = average(nll[t.Parted:]), average(full.scores[i].NLL[t.Parted:])
		}
		if own != nil {
			t.KLBefore = average(own[i].KL[:t.Parted])
			t.KLAfter = average(own[i].KL[min(t.Parted+1, len(text)):])
		}
		list = append(list, t)
	}
	return list
}

// average is the mean, to six decimals, and 0 of nothing.
func average(values []float32) float64 {
	if len(values) == 0 {
		return 0
	}
	var sum float64
	for _, x := range values {
		sum += float64(x)
	}
	return math.Round(1e6*sum/float64(len(values))) / 1e6
}
