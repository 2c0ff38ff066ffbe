package tokenizer

import (
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// PaddingSide is where short rows are filled up.
type PaddingSide string

// Sides. A model that continues texts needs padding on the left: every row then ends where its text does.
const (
	PadLeft  PaddingSide = "left"
	PadRight PaddingSide = "right"
)

// Padding says how the rows of a batch become equally long.
type Padding struct {
	Side         PaddingSide // "" means PadLeft
	ID           Token       // the padding token, usually the end of sequence
	ToMultipleOf int         // rows grow to a multiple of this many tokens; 0 and 1 leave the longest as it is
}

// EncodeBatch encodes texts into rows of one length. mask is 1 for a token and 0 for padding. A text that has no
// tokens is refused: nothing could continue it.
func (t *Tokenizer) EncodeBatch(texts []string, padding Padding, options ...Option) (ids [][]Token, mask [][]int32, err error) {
	if padding.Side == "" {
		padding.Side = PadLeft
	}
	if padding.Side != PadLeft && padding.Side != PadRight {
		return nil, nil, usererr.New("padding side %q, want %q or %q", padding.Side, PadLeft, PadRight)
	}
	if padding.ToMultipleOf < 0 {
		return nil, nil, usererr.New("padding to a multiple of %d, want 1 or more (0 for none)", padding.ToMultipleOf)
	}
	if padding.ID < 0 || int(padding.ID) >= t.VocabSize() {
		return nil, nil, usererr.New("padding token %d, want 0 to %d", padding.ID, t.VocabSize()-1)
	}
	rows := make([][]Token, len(texts))
	width := 0
	for i, text := range texts {
		if rows[i] = t.Encode(text, options...); len(rows[i]) == 0 {
			return nil, nil, usererr.New("text %d of %d is empty, want at least one token", i+1, len(texts))
		}
		width = max(width, len(rows[i]))
	}
	if n := padding.ToMultipleOf; n > 1 {
		width = (width + n - 1) / n * n
	}
	for _, row := range rows {
		fill := width - len(row)
		pad, zeros, ones := slices.Repeat([]Token{padding.ID}, fill), make([]int32, fill), slices.Repeat([]int32{1}, len(row))
		tokens, marks := slices.Concat(pad, row), slices.Concat(zeros, ones)
		if padding.Side == PadRight {
			tokens, marks = slices.Concat(row, pad), slices.Concat(ones, zeros)
		}
		ids, mask = append(ids, tokens), append(mask, marks)
	}
	return ids, mask, nil
}
