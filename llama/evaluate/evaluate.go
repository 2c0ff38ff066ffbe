package evaluate

import (
	"context"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Options say how texts are scored. The zero value scores without a reference.
type Options struct {
	// Reference is a generator, usually of the same model with a full-precision cache, with whose
	// predictions each prediction is compared. It runs side by side: both go on a block of tokens
	// at a time. nil: none.
	Reference *llama.Generator
	// Kept are a reference's predictions for the same texts, made before by [Keep], in the place of
	// Reference: several caches are then compared with it for one run of it. nil: none.
	Kept *Kept
	// Prefill is how many tokens of each text go in at once, as a prompt does; the others follow
	// one a step, so that every token after them is predicted through the cache. 0 means 64.
	Prefill int
	// Whole gives the cache its final size from the start, instead of letting it grow with the
	// texts: a long text is then read by one compiled graph, whose attention may read empty slots.
	Whole bool
	// Progress is told how many tokens of the longest text are scored, and how many there are; an
	// error from it ends the evaluation. nil: nobody is told.
	Progress func(done, total int) error
}

// Result is what Score gave.
type Result struct {
	Rows      []Scores // of the generator under test, one per text
	Reference []Scores // of the reference, NLL alone; nil without one
	Cache     kvq.Memory
	Timing    llama.Timing // of the generator under test
}

// All are the scores of all texts, one after the other.
func (r *Result) All() Scores { return join(r.Rows) }

// AllReference are those of the reference.
func (r *Result) AllReference() Scores { return join(r.Reference) }

// Score predicts each token of texts [B][n] (n may differ from row to row) after the prefilled ones
// from the tokens before it, through the cache of tested. Bad input is [llama.ErrInput].
func Score(ctx context.Context, tested *llama.Generator, texts [][]tokenizer.Token, o Options) (*Result, error) {
	config := tested.Model().Config()
	if o.Reference != nil && o.Reference.Model().Config().VocabSize != config.VocabSize {
		return nil, usererr.New("reference with a vocabulary of %d, the tested model has %d", o.Reference.Model().Config().VocabSize, config.VocabSize)
	}
	t, err := newForcedTexts(config, texts, o)
	if err != nil {
		return nil, err
	}
	if o.Kept != nil {
		if o.Reference != nil {
			return nil, usererr.New("both Reference and Kept, want one of them")
		}
		if err := o.Kept.fits(t); err != nil {
			return nil, err
		}
	}
	var under, ref *run
	k := scoreAlone
	if o.Kept != nil {
		k = scoreTested
	}
	if o.Reference != nil {
		k = scoreTested
		if ref, err = t.start(ctx, o.Reference, scoreReference); err != nil {
			return nil, err
		}
		defer ref.free()
	}
	if under, err = t.start(ctx, tested, k); err != nil {
		return nil, err
	}
	defer under.free()

	for i := 0; t.scored < t.total; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var predictions engine.Array
		if o.Kept != nil {
			predictions = o.Kept.predictions[i]
		}
		if ref != nil {
			if err := ref.step(ctx, nil); err != nil {
				return nil, err
			}
			predictions = ref.predictions
		}
		if err := under.step(ctx, predictions); err != nil {
			return nil, err
		}
		if err := t.advance(o); err != nil {
			return nil, err
		}
	}
	out := &Result{Rows: under.rows, Timing: llama.Timing(under.session.Clock())}
	if ref != nil {
		out.Reference = ref.rows
	}
	if o.Kept != nil {
		out.Reference = o.Kept.Rows
	}
	out.Cache, err = under.session.Memory()
	return out, err
}

// run is one generator's part of an evaluation.
type run struct {
	*forcedTexts
	kind    kind
	session engine.Session
	logits  engine.Array // of the prompt, until they are scored; else nil
	// predictions are the log-probabilities [N, B, V] of the newest step, on the device; of a
	// reference alone, else nil.
	predictions engine.Array
	rows        []Scores
}

// start takes the first tokens in.
func (f *forcedTexts) start(ctx context.Context, g *llama.Generator, k kind) (*run, error) {
	r := &run{forcedTexts: f, kind: k, rows: make([]Scores, len(f.texts))}
	first := make([][]tokenizer.Token, len(f.texts))
	for i, text := range f.texts {
		first[i] = text[:f.prefill]
	}
	var err error
	if r.session, err = engine.NewSession(g, first, f.total); err != nil {
		return nil, err
	}
	if !f.whole {
		startLoop(r.session, k, f.vocab) // compiled while the prompt's graph is
	}
	if r.logits, err = r.session.Prefill(ctx); err != nil || !f.whole {
		return r, err
	}
	now := r.session.Plan().Shape().Capacity
	capacity := now
	for capacity-now+r.session.Room() < f.total-1 { // the last token is not fed
		capacity *= 2
	}
	if capacity > now {
		err = r.session.Grow(ctx, capacity)
	}
	return r, err
}

func (r *run) free() {
	free(&r.logits, &r.predictions)
	r.session.Free()
}

func free(list ...*engine.Array) {
	for _, a := range list {
		if *a != nil {
			(*a).Free()
			*a = nil
		}
	}
}

// step scores the next tokens: from the prompt's logits the first time, then by feeding the tokens
// scored before.
func (r *run) step(ctx context.Context, reference engine.Array) error {
	free(&r.predictions)
	var inputs []any
	if reference != nil {
		inputs = []any{reference}
	}
	var out []engine.Array
	var err error
	n := r.next()
	if r.scored == 0 {
		out, err = r.scorePrompt(ctx, inputs)
	} else {
		out, err = r.scoreFed(ctx, n, inputs)
	}
	if err != nil {
		return err
	}
	if r.kind == scoreReference {
		r.predictions, out = out[len(out)-1], out[:len(out)-1]
	}
	defer func() {
		for _, a := range out {
			a.Free()
		}
	}()
	return r.take(n, out)
}

func (r *run) scorePrompt(ctx context.Context, reference []any) ([]engine.Array, error) {
	program := startPrompt(r.session, r.kind, r.vocab)
	out, err := r.session.Run(ctx, program, append([]any{r.logits, [][]tokenizer.Token{r.column(0)}}, reference...)...)
	free(&r.logits)
	return out, err
}

func (r *run) scoreFed(ctx context.Context, n int, reference []any) ([]engine.Array, error) {
	if r.session.Room() < n {
		if err := r.session.Grow(ctx, 2*r.session.Plan().Shape().Capacity); err != nil {
			return nil, err
		}
	}
	program := startLoop(r.session, r.kind, r.vocab)
	inputs := []any{[]int32{int32(n)}, r.columns(r.scored-1, n), r.columns(r.scored, n)}
	return r.session.Step(ctx, program, n, append(inputs, reference...)...)
}

// take adds scores [N, B] to the rows, as far as their texts go.
func (r *run) take(n int, out []engine.Array) error {
	nll, err := out[0].Float32()
	if err != nil {
		return err
	}
	var kl []float32
	var top1 []bool
	if r.kind == scoreTested {
		if kl, err = out[1].Float32(); err != nil {
			return err
		}
		if top1, err = out[2].Bool(); err != nil {
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
