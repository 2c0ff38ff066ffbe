package llama

import (
	"fmt"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// prompt is a checked batch: rows of equal length, padded on the left with masked tokens.
type prompt struct {
	ids     [][]tokenizer.Token
	start   []int32 // padding of each row
	length  int     // columns, padding included
	longest int     // most tokens of a row, padding left out
}

// newPrompt checks a batch for a model, and drops columns that are padding in every row. Errors are
// one line: what was wanted, what came.
func newPrompt(batch tokenizer.Batch, c Config) (*prompt, error) {
	ids, mask := batch.IDs, batch.Mask
	if len(ids) == 0 {
		return nil, usererr.New("no prompt, want at least one")
	}
	if mask != nil && len(mask) != len(ids) {
		return nil, usererr.New("attention mask of %d rows for %d prompts", len(mask), len(ids))
	}
	p := &prompt{length: len(ids[0])}
	for i, row := range ids {
		if len(row) != p.length {
			return nil, usererr.New("prompt %d has %d columns, prompt 0 has %d: pad the shorter ones on the left", i, len(row), p.length)
		}
		start := 0
		if mask != nil {
			var err error
			if start, err = leftPadding(mask[i], len(row)); err != nil {
				return nil, usererr.New("attention mask of prompt %d: %w", i, err)
			}
		}
		if start == len(row) {
			return nil, usererr.New("prompt %d is empty, want at least one token", i)
		}
		for j, id := range row[start:] {
			if id < 0 || int(id) >= c.VocabSize {
				return nil, usererr.New("prompt %d has token id %d at column %d, want 0 to %d", i, id, start+j, c.VocabSize-1)
			}
		}
		if n := len(row) - start; n > c.MaxPositions {
			return nil, usererr.New("prompt %d has %d tokens, the model reads at most %d", i, n, c.MaxPositions)
		}
		p.start = append(p.start, int32(start))
		p.longest = max(p.longest, len(row)-start)
	}
	p.ids = ids
	return p.resize(p.longest), nil
}

// checkTeacherForced checks tokens that are given instead of picked: nil, or a row of one length
// for each prompt.
func checkTeacherForced(forced [][]tokenizer.Token, batch int, c Config) error {
	if forced == nil {
		return nil
	}
	if len(forced) != batch || len(forced[0]) == 0 {
		return usererr.New("forced tokens for %d rows, want %d rows of at least one token", len(forced), batch)
	}
	for i, row := range forced {
		if len(row) != len(forced[0]) {
			return usererr.New("row %d has %d forced tokens, row 0 has %d: want one length", i, len(row), len(forced[0]))
		}
		for _, id := range row {
			if id < 0 || int(id) >= c.VocabSize {
				return usererr.New("forced token id %d in row %d, want 0 to %d", id, i, c.VocabSize-1)
			}
		}
	}
	return nil
}

// leftPadding counts the zeros that a row of the mask begins with; all that follow have to be ones.
func leftPadding(mask []int32, columns int) (int, error) {
	if len(mask) != columns {
		return 0, fmt.Errorf("%d columns, want %d", len(mask), columns)
	}
	start := 0
	for i, m := range mask {
		switch {
		case m == 0 && start == i:
			start++
		case m == 0:
			return 0, fmt.Errorf("0 at column %d after a 1, want padding on the left only", i)
		case m != 1:
			return 0, fmt.Errorf("%d at column %d, want 0 or 1", m, i)
		}
	}
	return start, nil
}

// resize adds columns of padding on the left, or drops some that every row has, so that there are
// length of them.
func (p *prompt) resize(length int) *prompt {
	more := length - p.length
	q := &prompt{length: length, longest: p.longest}
	for i, row := range p.ids {
		wider := make([]tokenizer.Token, length) // padding is masked: any valid id will do
		copy(wider[max(0, more):], row[max(0, -more):])
		q.ids = append(q.ids, wider)
		q.start = append(q.start, p.start[i]+int32(more))
	}
	for i, start := range q.start {
		clear(q.ids[i][:start]) // a caller's padding may be any number
	}
	return q
}
