package models

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// cacheInBatch gives a cache the same keys and values for a row alone and for the row in a padded
// batch: it holds the same bit by bit.
func cacheInBatch(ctx context.Context, s *soak.Sitting) error {
	list, starts := caches(), []int{0, 5, 33}
	if s.Quick {
		list, starts = some("quanto-2"), []int{5, 0}
	}
	for _, c := range list {
		key := "batch of " + c.name
		if s.Kept(key) != "" {
			continue
		}
		if err := cacheRows(ctx, s, c, starts); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if ctx.Err() != nil {
			return nil
		}
		s.Keep(key, "done")
	}
	return nil
}

// answersWithin is how far answers alone and in a batch may lie apart, beside their size: sums of
// float32 in another order.
const answersWithin = 1e-4

func cacheRows(ctx context.Context, s *soak.Sitting, c named, starts []int) error {
	const heads, kvHeads, dim, prompt, slots = 4, 2, 64, 128, 150
	shape := kvq.Shape{Layers: 1, Batch: len(starts), KVHeads: kvHeads, HeadDim: dim, Capacity: 160, DType: dtypes.Float32}
	text := newTexts(11, len(starts), heads, kvHeads, dim, slots)
	together, err := newPlayer(c.config, shape)
	if err != nil {
		return err
	}
	defer together.end()
	s.Doing("%s in a batch", c.name)
	all := together.with(text, starts...)
	answers, err := play(all, prompt, slots)
	if err != nil {
		return err
	}
	held, err := all.held()
	if err != nil {
		return err
	}
	shape.Batch = 1
	alone, err := newPlayer(c.config, shape)
	if err != nil {
		return err
	}
	defer alone.end()
	for row, start := range starts {
		if ctx.Err() != nil || s.Quick && row > 0 {
			return nil
		}
		one := *text
		one.rows = text.rows[row : row+1]
		p := alone.with(&one, 0)
		own, err := play(p, prompt-start, slots-start)
		if err != nil {
			return err
		}
		ownHeld, err := p.held()
		if err != nil {
			return err
		}
		if what := sameTokens(held[row], ownHeld[0]); what != "" {
			s.Fail(nil, "%s: row %d alone holds %s than in a batch of %d", c.name, row, what, len(starts))
		}
		for i := range answers {
			if far := apart(answers[i][row], own[i][0]); far > answersWithin {
				s.Fail(nil, "%s: the answers of row %d alone and in a batch of %d lie %.2g apart in call %d", c.name, row, len(starts), far, i)
				break
			}
		}
		s.Try("rows of caches alone and in a batch")
	}
	return nil
}

// apart is the largest difference of two arrays, in parts of their largest element.
func apart(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	most, size := 0.0, 1e-30
	for i := range a {
		most, size = max(most, math.Abs(float64(a[i])-float64(b[i]))), max(size, math.Abs(float64(a[i])))
	}
	return most / size
}

// tie is how near the two best logits may lie for a batch to pick the other one.
const tie = 1e-4

// shares counts codes, and those that differ.
type shares struct{ differ, all int }

// modelInBatch generates rows alone and in a batch.
func modelInBatch(ctx context.Context, s *soak.Sitting) error {
	for _, one := range []struct {
		name    string
		open    func() (*llama.Model, error)
		caches  []named
		lengths []int
		tokens  int
		quick   bool
	}{
		{"tiny model", func() (*llama.Model, error) { return tiny(512) }, caches(), []int{120, 33, 101, 64}, 64, true},
		{"SmolLM2", small, some("full", "tutorial", "quanto-2", "balanced"), []int{120, 33, 101, 64}, 64, false},
	} {
		if s.Quick {
			if !one.quick {
				continue
			}
			one.caches, one.lengths, one.tokens = some("quanto-2"), []int{40, 13}, 30
		}
		var m *llama.Model
		for _, c := range one.caches {
			key := "batch of " + one.name + " " + c.name
			if s.Kept(key) != "" || ctx.Err() != nil {
				continue
			}
			if m == nil {
				var err error
				if m, err = one.open(); err != nil {
					return err
				}
			}
			s.Doing("%s, %s", one.name, c.name)
			count, err := modelRows(ctx, s, one.name, c, m, one.lengths, one.tokens)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s, %s: %w", one.name, c.name, err)
			}
			told := "done"
			if count.all > 0 {
				told = fmt.Sprintf("%.3g %%", 100*float64(count.differ)/float64(count.all))
			}
			s.Keep(key, told)
		}
		if ctx.Err() == nil && !s.Quick {
			text := ""
			for _, c := range one.caches {
				if share := s.Kept("batch of " + one.name + " " + c.name); share != "done" {
					text += fmt.Sprintf(", %s %s", c.name, share)
				}
			}
			s.Note("Codes of %s that differ between a row alone and in a batch of %d: %s", one.name, len(one.lengths), text[2:])
		}
	}
	return nil
}

// generated is what a generation gave, with what its cache held at the end.
type generated struct {
	result *llama.Result
	held   [][]map[int]token
}

// readers are those of one configuration, by rows and capacity.
type readers map[[2]int]*reader

func (list readers) of(plan *kvq.Plan) (*reader, error) {
	key := [2]int{plan.Shape().Batch, plan.Shape().Capacity}
	if r := list[key]; r != nil {
		return r, nil
	}
	r, err := newReader(plan)
	if err == nil {
		list[key] = r
	}
	return r, err
}

func (list readers) end() {
	for _, r := range list {
		r.exec.Finalize()
	}
}

func generate(ctx context.Context, g *llama.Generator, list readers, batch tokenizer.Batch, gc llama.GenerateConfig) (out generated, err error) {
	result, err := engine.Generate(ctx, g, batch, gc, func(plan *kvq.Plan, state []*tensors.Tensor) error {
		r, err := list.of(plan)
		if err != nil {
			return err
		}
		out.held, err = r.read(state)
		return err
	})
	if err != nil {
		return out, err
	}
	out.result = result.(*llama.Result)
	return out, nil
}

// modelRows compares each row of a batch with the row alone: tokens, and the codes of all tokens up
// to the first that is another. XLA rounds the products of several rows otherwise than those of one
// row. So texts may part where two logits are about equal, and after a code on whose border a key
// or value lay: each such place is shown.
func modelRows(ctx context.Context, s *soak.Sitting, model string, c named, m *llama.Model, lengths []int, tokens int) (count shares, err error) {
	g, end, err := generatorOf(s, m, c)
	if err != nil {
		return count, err
	}
	defer end()
	batch := prompts(m.Config().VocabSize, 5, lengths...)
	gc := greedy(tokens)
	gc.KeepLogits = true
	list := readers{}
	defer list.end()
	together, err := generate(ctx, g, list, batch, gc)
	if err != nil {
		return count, err
	}
	for row, length := range lengths {
		alone, err := generate(ctx, g, list, tokenizer.Batch{IDs: [][]tokenizer.Token{batch.Row(row)}}, gc)
		if err != nil {
			return count, err
		}
		a, b := alone.result.Tokens[0], together.result.Tokens[row]
		same := 0
		for same < tokens && a[same] == b[same] {
			same++
		}
		before := shares{} // of the tokens that both texts share
		for layer := range alone.held {
			one, other := alone.held[layer][0], together.held[layer][row]
			for i := range min(len(one), length+same) {
				before.all += len(one[i].keyCodes) + len(one[i].valueCodes)
				if (one[i].keyCodes == nil) == (other[i].keyCodes == nil) {
					before.differ += differing(one[i].keyCodes, other[i].keyCodes) + differing(one[i].valueCodes, other[i].valueCodes)
				}
			}
		}
		count.differ, count.all = count.differ+before.differ, count.all+before.all
		if same < tokens {
			gap := best(alone.result.Logits[same][0])
			place := fmt.Sprintf("%s, %s, row %d of %d: token %d is %d alone and %d in the batch, the two best logits lie %.2g apart",
				model, c.name, row, len(lengths), same, a[same], b[same], gap)
			switch {
			case gap <= tie:
				s.Note("%s", place)
				s.Try("near ties")
			case before.differ > 0:
				s.Note("%s, %d of %d codes before it differ", place, before.differ, before.all)
				s.Try("texts that part after a code that differs")
			default:
				s.Fail(nil, "%s", place)
			}
		}
		s.Try("rows of models alone and in a batch")
	}
	return count, nil
}

// best is how far the two largest numbers lie apart.
func best(x []float32) float64 {
	sorted := slices.Sorted(slices.Values(x))
	return float64(sorted[len(sorted)-1]) - float64(sorted[len(sorted)-2])
}
