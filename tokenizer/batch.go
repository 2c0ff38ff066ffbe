package tokenizer

import (
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Batch is rows of tokens of one length, as a model reads them at once.
type Batch struct {
	IDs  [][]Token // [B][T]
	Mask [][]int32 // [B][T], 1 for a token and 0 for padding; nil: there is no padding
}

// Row returns the tokens of row i without padding.
func (b Batch) Row(i int) []Token {
	if b.Mask == nil {
		return b.IDs[i]
	}
	var row []Token
	for j, id := range b.IDs[i] {
		if b.Mask[i][j] != 0 {
			row = append(row, id)
		}
	}
	return row
}

// PaddingSide is where short rows are filled up.
type PaddingSide string

// Sides. A model that continues texts needs padding on the left: every row then ends where its text
// does.
const (
	PadLeft  PaddingSide = "left"
	PadRight PaddingSide = "right"
)

// Padding says how the rows of a batch become equally long. The zero value suits a model that
// continues texts.
type Padding struct {
	// Side is where padding goes; "" means PadLeft.
	Side PaddingSide
	// ID is the padding token. nil stands for the one that the model's files name, else for its end
	// of sequence, else for 0: padding is masked, so its value changes no result.
	ID *Token
	// ToMultipleOf lets rows grow to a multiple of this many tokens; 0 and 1 leave the longest as
	// it is.
	ToMultipleOf int
}

// EncodeBatch encodes texts into a batch. A text that has no tokens is refused: nothing could
// continue it.
func (t *Tokenizer) EncodeBatch(texts []string, padding Padding) (Batch, error) {
	rows := make([][]Token, len(texts))
	for i, text := range texts {
		rows[i] = t.Encode(text)
	}
	return t.Batch(rows, padding)
}

// Batch makes a batch of rows of tokens. An empty row is refused.
func (t *Tokenizer) Batch(rows [][]Token, padding Padding) (Batch, error) {
	if padding.Side == "" {
		padding.Side = PadLeft
	}
	if padding.Side != PadLeft && padding.Side != PadRight {
		return Batch{}, usererr.New("padding side %q, want %q or %q", padding.Side, PadLeft, PadRight)
	}
	if padding.ToMultipleOf < 0 {
		return Batch{}, usererr.New("padding to a multiple of %d, want 1 or more (0 for none)", padding.ToMultipleOf)
	}
	pad := max(0, t.eos)
	if t.pad >= 0 {
		pad = t.pad
	}
	if padding.ID != nil {
		if pad = *padding.ID; pad < 0 || int(pad) >= t.VocabSize() {
			return Batch{}, usererr.New("padding token %d, want 0 to %d", pad, t.VocabSize()-1)
		}
	}
	width := 0
	for i, row := range rows {
		if len(row) == 0 {
			return Batch{}, usererr.New("text %d of %d is empty, want at least one token", i+1, len(rows))
		}
		width = max(width, len(row))
	}
	if n := padding.ToMultipleOf; n > 1 {
		width = (width + n - 1) / n * n
	}
	var b Batch
	for _, row := range rows {
		fill := slices.Repeat([]Token{pad}, width-len(row))
		zeros, ones := make([]int32, len(fill)), slices.Repeat([]int32{1}, len(row))
		ids, mask := slices.Concat(fill, row), slices.Concat(zeros, ones)
		if padding.Side == PadRight {
			ids, mask = slices.Concat(row, fill), slices.Concat(ones, zeros)
		}
		b.IDs, b.Mask = append(b.IDs, ids), append(b.Mask, mask)
	}
	return b, nil
}
