package evaluate

import (
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// forcedTexts are texts that are teacher-forced, and how far they are scored.
type forcedTexts struct {
	texts   [][]tokenizer.Token
	prefill int
	whole   bool
	total   int // tokens of the longest text to score
	scored  int // of these, how many are
	padID   tokenizer.Token
	vocab   int
}

// defaultPrefill is as the command has it.
const defaultPrefill = 64

func newForcedTexts(c llama.Config, texts [][]tokenizer.Token, o Options) (*forcedTexts, error) {
	prefill := o.Prefill
	if len(texts) == 0 {
		return nil, usererr.New("no text to score, want at least one")
	}
	if prefill == 0 {
		prefill = defaultPrefill
	}
	if prefill < 1 {
		return nil, usererr.New("%d tokens to go in at once, want at least 1", prefill)
	}
	f := &forcedTexts{texts: texts, prefill: prefill, whole: o.Whole, padID: tokenizer.Token(c.PadID), vocab: c.VocabSize}
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
func (f *forcedTexts) next() int {
	if f.scored == 0 {
		return 1
	}
	return min(block, f.total-f.scored)
}

// advance goes on by one step, and tells how far it is.
func (f *forcedTexts) advance(o Options) error {
	f.scored += f.next()
	if o.Progress == nil {
		return nil
	}
	return o.Progress(f.scored, f.total)
}

// column gives the tokens at a place counted from the end of the prefilled part; padding past the
// end of a text.
func (f *forcedTexts) column(place int) []tokenizer.Token {
	out := make([]tokenizer.Token, len(f.texts))
	for i, text := range f.texts {
		if out[i] = f.padID; f.prefill+place < len(text) {
			out[i] = text[f.prefill+place]
		}
	}
	return out
}

// columns gives n columns, with room for a block.
func (f *forcedTexts) columns(from, n int) *tensors.Tensor {
	flat := make([]tokenizer.Token, 0, block*len(f.texts))
	for i := range n {
		flat = append(flat, f.column(from+i)...)
	}
	return tensors.FromFlatDataAndDimensions(flat[:block*len(f.texts)], block, len(f.texts))
}
