package evaluate

import (
	"cmp"
	"context"
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Candidate is a cache that Cheapest looked at.
type Candidate struct {
	Config     kvq.Config
	Bits       float64 // a value, scales and zero points included
	KL         float64 // mean over all scored tokens, in nats
	Perplexity float64
	Agreement  float64 // share of tokens where both caches find the same token most likely
}

// Cheapest returns the cache with the fewest bits a value whose KL divergence from the
// full-precision cache, averaged over the given texts [B][n] of token ids, is at most budget nats,
// and what it measured on the way. It tries candidates from the fewest bits up and stops at the
// first that passes; nil candidates are the presets of [llama.PresetFor], and [Harms.Spread] makes
// some with bits by layer. Of o, Reference and Kept are not used: full precision runs once, unless
// its predictions would take more than 1 GiB.
//
// Quality is a matter of model and text: a budget met on a few hundred tokens of one kind says
// little about another kind. Where no candidate passes, the error says so, and the measurements
// come with it.
func Cheapest(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, budget float64, candidates []kvq.Config, o Options) (kvq.Config, []Candidate, error) {
	if budget <= 0 {
		return kvq.Config{}, nil, usererr.New("a KL budget of %g: want more than 0, since only the full-precision cache costs nothing", budget)
	}
	if candidates == nil {
		for _, name := range kvq.Presets() {
			c, err := llama.PresetFor(name, model.Config())
			if err != nil {
				return kvq.Config{}, nil, err
			}
			candidates = append(candidates, c)
		}
	}
	full, err := llama.NewGenerator(model, kvq.Config{})
	if err != nil {
		return kvq.Config{}, nil, err
	}
	defer full.Finalize()
	o.Reference, o.Kept = full, nil
	var queue []Candidate
	for _, c := range candidates {
		plan, err := planOf(model, c)
		if err != nil {
			return kvq.Config{}, nil, err
		}
		queue = append(queue, Candidate{Config: plan.Config(), Bits: plan.BitsPerValue()})
	}
	slices.SortStableFunc(queue, func(a, b Candidate) int { return cmp.Compare(a.Bits, b.Bits) })
	if keptBytes(model.Config(), texts) <= keptAtMost {
		alone := o
		alone.Reference, alone.Progress = nil, nil
		kept, err := Keep(ctx, full, texts, alone)
		if err != nil {
			return kvq.Config{}, nil, err
		}
		defer kept.Free()
		o.Reference, o.Kept = nil, kept
	}
	var seen []Candidate
	for _, c := range queue {
		if err := c.measure(ctx, model, texts, o); err != nil {
			return kvq.Config{}, seen, err
		}
		seen = append(seen, c)
		if c.KL <= budget {
			return c.Config, seen, nil
		}
	}
	return kvq.Config{}, seen, usererr.New("no cache with a KL divergence of at most %g among %d candidates: the best has %g; raise the budget or use the full-precision cache",
		budget, len(seen), slices.MinFunc(seen, func(a, b Candidate) int { return cmp.Compare(a.KL, b.KL) }).KL)
}

// keptAtMost are the bytes of full precision's predictions up to which Cheapest keeps them. Of
// longer texts they are made anew for each candidate, a block of tokens at a time.
const keptAtMost = 1 << 30

// keptBytes are those of the predictions for texts, at most.
func keptBytes(model llama.Config, texts [][]tokenizer.Token) int64 {
	longest := 0
	for _, text := range texts {
		longest = max(longest, len(text))
	}
	return 4 * int64(len(texts)) * int64(longest) * int64(model.VocabSize)
}

// planOf lays out a cache for one row of the model.
func planOf(model *llama.Model, config kvq.Config) (*kvq.Plan, error) {
	c := model.Config()
	plan, err := kvq.New(config, kvq.Shape{Layers: c.Layers, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: c.MaxPositions, DType: model.DType()})
	if err != nil {
		return nil, usererr.New("cache: %w", err)
	}
	return plan, nil
}

func (c *Candidate) measure(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, o Options) error {
	g, err := llama.NewGenerator(model, c.Config)
	if err != nil {
		return err
	}
	defer g.Finalize()
	r, err := Score(ctx, g, texts, o)
	if err != nil {
		return err
	}
	all := r.All()
	c.KL, c.Perplexity, c.Agreement = all.MeanKL(), all.Perplexity(), all.Agreement()
	return nil
}
