package evaluate

import (
	"context"
	"slices"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Kept are the predictions of a reference for texts, log-probabilities on the device: 4 bytes a
// token and word of the vocabulary, 200 KB a token for one of 50,000. Safe for concurrent use until
// Free.
type Kept struct {
	Rows        []Scores // of the reference, NLL alone
	texts       *forcedTexts
	predictions []engine.Array // of each step
}

// Keep makes the predictions of a reference for texts, for [Options.Kept]. Options.Prefill has to
// be the same there. The caller ends it with [Kept.Free].
func Keep(ctx context.Context, reference *llama.Generator, texts [][]tokenizer.Token, o Options) (*Kept, error) {
	if o.Reference != nil || o.Kept != nil {
		return nil, usererr.New("predictions to keep, with a reference of their own, want none")
	}
	t, err := newForcedTexts(reference.Model().Config(), texts, o)
	if err != nil {
		return nil, err
	}
	r, err := t.start(ctx, reference, scoreReference)
	if err != nil {
		return nil, err
	}
	defer r.free()
	k := &Kept{texts: t}
	for t.scored < t.total {
		if err = ctx.Err(); err == nil {
			err = r.step(ctx, nil)
		}
		if err != nil {
			k.Free()
			return nil, err
		}
		k.predictions, r.predictions = append(k.predictions, r.predictions), nil
		if err := t.advance(o); err != nil {
			k.Free()
			return nil, err
		}
	}
	k.Rows = r.rows
	return k, nil
}

// Free gives their memory on the device back.
func (k *Kept) Free() {
	for i := range k.predictions {
		free(&k.predictions[i])
	}
}

// fits refuses other texts than those of the predictions.
func (k *Kept) fits(t *forcedTexts) error {
	switch {
	case k.texts.vocab != t.vocab:
		return usererr.New("kept predictions over a vocabulary of %d, the tested model has %d", k.texts.vocab, t.vocab)
	case k.texts.prefill != t.prefill:
		return usererr.New("kept predictions of texts of which %d tokens went in at once, now %d do", k.texts.prefill, t.prefill)
	case !slices.EqualFunc(k.texts.texts, t.texts, slices.Equal[[]tokenizer.Token]):
		return usererr.New("kept predictions of other texts than these")
	case len(k.predictions) == 0 || k.predictions[0] == nil:
		return usererr.New("kept predictions that are freed")
	}
	return nil
}
