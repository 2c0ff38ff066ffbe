package llama

import (
	"context"
	"math"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Scores say how well a model with its cache predicts one text, token by token, from the first token after the
// prefilled ones on.
type Scores struct {
	NLL  []float32 // negative log-likelihood of each token, in nats
	KL   []float32 // Kullback-Leibler divergence from the reference's prediction to this one, in nats; nil without a reference
	Top1 []bool    // whether both find the same token most likely; nil without a reference
}

// Perplexity is e to the mean of NLL.
func (s Scores) Perplexity() float64 { return math.Exp(Mean(s.NLL)) }

// Agreement is the share of tokens whose Top1 is true.
func (s Scores) Agreement() float64 {
	var n float64
	for _, same := range s.Top1 {
		if same {
			n++
		}
	}
	return n / float64(len(s.Top1))
}

// Mean is the mean of scores, summed in float64. That of none is NaN.
func Mean(scores []float32) float64 {
	var sum float64
	for _, s := range scores {
		sum += float64(s)
	}
	return sum / float64(len(scores))
}

// Join puts the scores of several texts one after the other, to average over all of them.
func Join(rows []Scores) Scores {
	var all Scores
	for _, s := range rows {
		all.NLL, all.KL, all.Top1 = append(all.NLL, s.NLL...), append(all.KL, s.KL...), append(all.Top1, s.Top1...)
	}
	return all
}

// Evaluation is what Evaluate gave.
type Evaluation struct {
	Rows      []Scores // of the cache under test, one per text
	Reference []Scores // of the reference, NLL alone; nil without one
	Cache     kvq.Memory
	Timing    Timing // of the cache under test
}

// Evaluate scores texts [B][n] (n may differ from row to row) with the cache of tested: the first prefill tokens of
// each text go in at once, then one given token a step, so that every token after them is predicted through the cache.
// With a reference (a generator with a full-precision cache, usually of the same model) each prediction is compared
// with the reference's, which runs side by side: both go on a block of tokens at a time, and a block's predictions
// stay on the device, so that memory does not grow with the texts.
//
// progress, if not nil, is told the tokens of the longest text that are scored, and how many there are; an error from
// it, or the end of ctx, ends the evaluation.
func Evaluate(ctx context.Context, reference, tested *Generator, texts [][]tokenizer.Token, prefill int, progress func(done, total int) error) (*Evaluation, error) {
	if reference != nil && reference.model.config.VocabSize != tested.model.config.VocabSize {
		return nil, usererr.New("reference with a vocabulary of %d, the tested model has %d", reference.model.config.VocabSize, tested.model.config.VocabSize)
	}
	f, err := newForcing(tested.model.config, texts, prefill)
	if err != nil {
		return nil, err
	}
	var under, ref *forcedRun
	if reference != nil {
		if ref, err = f.start(ctx, reference, scoreReference); err != nil {
			return nil, err
		}
		defer ref.free()
	}
	kind := scoreAlone
	if ref != nil {
		kind = scoreTested
	}
	if under, err = f.start(ctx, tested, kind); err != nil {
		return nil, err
	}
	defer under.free()

	for f.scored < f.total {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if ref != nil {
			if err := ref.step(ctx, nil); err != nil {
				return nil, err
			}
		}
		if err := under.step(ctx, ref); err != nil {
			return nil, err
		}
		f.scored += f.next()
		if progress != nil {
			if err := progress(f.scored, f.total); err != nil {
				return nil, err
			}
		}
	}
	out := &Evaluation{Rows: under.rows, Timing: under.clock}
	if ref != nil {
		out.Reference = ref.rows
	}
	each, err := under.cache.memory()
	for _, m := range each {
		out.Cache = out.Cache.Plus(m)
	}
	return out, err
}

// forcing is the texts of an evaluation and how far it is.
type forcing struct {
	texts   [][]tokenizer.Token
	prefill int
	total   int // tokens of the longest text to score
	scored  int // of these, how many are
	padID   tokenizer.Token
}

func newForcing(c Config, texts [][]tokenizer.Token, prefill int) (*forcing, error) {
	if len(texts) == 0 {
		return nil, usererr.New("no text to score, want at least one")
	}
	if prefill < 1 {
		return nil, usererr.New("%d tokens to go in at once, want at least 1", prefill)
	}
	f := &forcing{texts: texts, prefill: prefill, padID: tokenizer.Token(c.PadID)}
	for i, text := range texts {
		if len(text) <= prefill {
			return nil, usererr.New("text %d has %d tokens, want more than the %d that go in at once", i, len(text), prefill)
		}
		if len(text) > c.MaxPositions {
			return nil, usererr.New("text %d has %d tokens, the model reads at most %d", i, len(text), c.MaxPositions)
		}
		for j, id := range text {
			if id < 0 || int(id) >= c.VocabSize {
				return nil, usererr.New("text %d has token id %d at place %d, want 0 to %d", i, id, j, c.VocabSize-1)
			}
		}
		f.total = max(f.total, len(text)-prefill)
	}
	return f, nil
}

// next is how many tokens the next step scores: one from the prompt's logits, then blocks.
func (f *forcing) next() int {
	if f.scored == 0 {
		return 1
	}
	return min(scoreBlock, f.total-f.scored)
}

// column gives the tokens at a place counted from the end of the prefilled part; padding past the end of a text.
func (f *forcing) column(place int) []tokenizer.Token {
	out := make([]tokenizer.Token, len(f.texts))
	for i, text := range f.texts {
		if out[i] = f.padID; f.prefill+place < len(text) {
			out[i] = text[f.prefill+place]
		}
	}
	return out
}

// columns gives n columns, with room for size.
func (f *forcing) columns(from, n, size int) *tensors.Tensor {
	flat := make([]tokenizer.Token, 0, size*len(f.texts))
	for i := range n {
		flat = append(flat, f.column(from+i)...)
	}
	return tensors.FromFlatDataAndDimensions(flat[:size*len(f.texts)], size, len(f.texts))
}

// forcedRun is one generator's part of an evaluation.
type forcedRun struct {
	*forcing
	g      *Generator
	kind   scoreKind
	cache  *session
	logits spread // of the prompt, until they are scored
	// predictions are the log-probabilities [N, B, V] of the newest step, on the device; of a reference alone.
	predictions spread
	rows        []Scores
	clock       Timing
}

// start takes the first tokens in.
func (f *forcing) start(ctx context.Context, g *Generator, kind scoreKind) (*forcedRun, error) {
	r := &forcedRun{forcing: f, g: g, kind: kind, rows: make([]Scores, len(f.texts))}
	first := make([][]tokenizer.Token, len(f.texts))
	for i, text := range f.texts {
		first[i] = text[:f.prefill]
	}
	p, err := newPrompt(first, nil, g.model.config)
	if err != nil {
		return nil, err
	}
	p = p.resize(promptBucket(p.length))
	plan, err := g.Plan(len(first), firstCapacity(p.length, f.total))
	if err != nil {
		return nil, err
	}
	g.startScore(plan, kind)
	r.cache, r.logits, err = g.prefill(ctx, plan, p, &r.clock)
	return r, err
}

func (r *forcedRun) free() {
	free(r.logits, r.predictions)
	if r.cache != nil {
		r.cache.free()
	}
}

// step scores the next tokens: from the prompt's logits the first time, then by feeding the tokens scored before.
func (r *forcedRun) step(ctx context.Context, reference *forcedRun) error {
	free(r.predictions)
	r.predictions = spread{}
	var out []spread
	var err error
	n := r.next()
	if r.scored == 0 {
		out, err = r.scorePrompt(ctx, reference)
	} else {
		out, err = r.scoreFed(ctx, n, reference)
	}
	if err != nil {
		return err
	}
	if r.kind == scoreReference {
		r.predictions, out = out[len(out)-1], out[:len(out)-1]
	}
	defer free(out...)
	return r.take(n, out)
}

func (r *forcedRun) scorePrompt(ctx context.Context, reference *forcedRun) ([]spread, error) {
	program := r.g.startScorePrompt(len(r.rows), r.kind)
	if err := r.clock.compiling(func() error { return program.wait(ctx) }); err != nil {
		return nil, err
	}
	inputs := []any{r.logits, [][]tokenizer.Token{r.column(0)}}
	if reference != nil {
		inputs = append(inputs, reference.predictions)
	}
	out, err := r.g.programs.run(context.WithoutCancel(ctx), program, inputs...)
	free(r.logits)
	r.logits = spread{}
	return out, err
}

func (r *forcedRun) scoreFed(ctx context.Context, n int, reference *forcedRun) ([]spread, error) {
	if r.cache.room() < n {
		if err := r.cache.grow(ctx, 2*r.cache.capacity()); err != nil {
			return nil, err
		}
	}
	program := r.g.startScore(r.cache.plan, r.kind)
	if err := r.clock.compiling(func() error { return program.wait(ctx) }); err != nil {
		return nil, err
	}
	inputs := r.cache.donate([]int32{int32(n)}, r.columns(r.scored-1, n, scoreBlock), r.columns(r.scored, n, scoreBlock))
	if reference != nil {
		inputs = append(inputs, reference.predictions)
	}
	var out []spread
	err := clocked(&r.clock.Decode, func() (err error) {
		out, err = r.g.programs.run(context.WithoutCancel(ctx), program, inputs...)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.cache.used += n
	r.clock.Steps += n
	return r.cache.replace(out), nil
}

// take adds scores [N, B] to the rows, as far as their texts go.
func (r *forcedRun) take(n int, out []spread) error {
	nll, err := read[float32](out[0])
	if err != nil {
		return err
	}
	var kl []float32
	var top1 []bool
	if r.kind == scoreTested {
		if kl, err = read[float32](out[1]); err != nil {
			return err
		}
		if top1, err = read[bool](out[2]); err != nil {
			return err
		}
	}
	for i := range r.rows {
		s := &r.rows[i]
		for j := range min(n, len(r.texts[i])-r.prefill-r.scored) {
			at := j*len(r.rows) + i
			s.NLL = append(s.NLL, nll[at])
			if r.kind == scoreTested {
				s.KL, s.Top1 = append(s.KL, kl[at]), append(s.Top1, top1[at])
			}
		}
	}
	return nil
}
