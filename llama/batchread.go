package llama

import (
	"context"
	"slices"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// RowBlock is what a call has made for one row.
type RowBlock struct {
	Row int
	// Tokens are the row's new tokens, the one that ends it included.
	Tokens []tokenizer.Token
	// Logits [n][V] are those that they were picked from, before any processing; nil without
	// KeepLogits.
	Logits [][]float32
	// Stop says why the row has ended; "" while it goes on.
	Stop StopReason
}

// Read gives a prompt to a row that rests and begins a generation after it; the first new token
// comes with it. kept is how many tokens of the prompt the row held already: they are not read
// again. Where reading the rest beside the other rows would take longer than reading the whole
// prompt, it is read anew, and kept is 0. TeacherForced is not for a batch.
//
// When ctx ends, the row holds what was read of the prompt by then, and no generation is under way.
func (b *Batch) Read(ctx context.Context, row int, prompt []tokenizer.Token, gc GenerateConfig) (kept int, first RowBlock, err error) {
	if err := b.check("Read", row); err != nil {
		return 0, first, err
	}
	made, err := b.newRowGeneration(prompt, gc)
	if err != nil {
		return 0, first, err
	}
	kept = min(b.Common(row, prompt), len(prompt)-1)
	if (len(prompt)-kept)*len(b.rows) >= len(prompt) {
		kept = 0
	}
	var logits sharded
	if kept == 0 {
		logits, err = b.insert(ctx, row, prompt, made.limit)
	} else {
		logits, err = b.extend(ctx, row, prompt, kept)
	}
	if err != nil {
		return kept, first, err
	}
	defer free(logits)
	tokens, sound, err := b.g.pickOne(ctx, &b.clock, made.pick, 1, 0, logits)
	if err != nil {
		return kept, first, err
	}
	if !sound[0] {
		return kept, first, b.g.notNumbers(row, 0)
	}
	var list [][][]float32
	if made.gc.KeepLogits {
		if list, err = readLogits(logits, 1, 1); err != nil {
			return kept, first, err
		}
	}
	b.rows[row].made = made
	return kept, b.take(row, tokens, list, 0), nil
}

// newRowGeneration checks a prompt and the settings after it.
func (b *Batch) newRowGeneration(prompt []tokenizer.Token, gc GenerateConfig) (*rowGeneration, error) {
	c := b.g.model.config
	if gc.TeacherForced != nil {
		return nil, usererr.New("llama.Batch: TeacherForced is for Generator.Generate")
	}
	if err := gc.Validate(c); err != nil {
		return nil, err
	}
	if _, err := newPrompt(tokenizer.Batch{IDs: [][]tokenizer.Token{prompt}}, c); err != nil {
		return nil, err
	}
	gc = gc.resolved(c)
	for _, other := range b.rows {
		if other.made == nil {
			continue
		}
		if o := other.made.gc; !slices.Equal(o.EOS, gc.EOS) || o.RepetitionWindow != gc.RepetitionWindow {
			return nil, usererr.New("llama.Batch: rows that are under way together have one EOS and one RepetitionWindow, got %v, %d beside %v, %d",
				gc.EOS, gc.RepetitionWindow, o.EOS, o.RepetitionWindow)
		}
	}
	made := &rowGeneration{gc: gc, pick: gc.picker(c, 1), limit: gc.MaxNewTokens, stop: StopLength}
	made.pick.Saw(0, prompt...)
	if len(gc.StopStrings) > 0 {
		made.text = newStopText(gc, prompt)
	}
	// The last new token is never read, so the first comes free when the prompt fills the context.
	if possible := c.MaxPositions - len(prompt) + 1; made.limit > possible {
		made.limit, made.stop = possible, StopContext
	}
	return made, nil
}

// insert reads a whole prompt in a cache of its own and puts it in the place of what the row holds.
// It returns the logits [1, V] of the last token.
func (b *Batch) insert(ctx context.Context, row int, prompt []tokenizer.Token, limit int) (logits sharded, err error) {
	p, err := newPrompt(tokenizer.Batch{IDs: [][]tokenizer.Token{prompt}}, b.g.model.config)
	if err != nil {
		return logits, err
	}
	columns := generate.PromptColumns(p.length)
	plan, err := b.g.plan(1, columns)
	if err != nil {
		return logits, err
	}
	room := columns
	if b.cache == nil {
		room = generate.FirstCapacity(columns, limit)
	}
	if err := b.makeRoom(ctx, room); err != nil {
		return logits, err
	}
	b.g.startInsert(b.cache.plan, plan)
	filled, logits, err := b.g.prefill(ctx, plan, p.resize(columns), &b.clock)
	if err != nil {
		return logits, err
	}
	defer filled.free()
	_, err = b.update(ctx, b.g.startInsert(b.cache.plan, plan), filled.inputs([]int32{int32(row)})...)
	if err != nil {
		free(logits)
		return logits, err
	}
	b.rows[row].held = slices.Clone(prompt)
	return logits, nil
}

// extend keeps so many tokens of what a row holds, and reads the rest of a prompt beside them. It
// returns the logits [1, V] of the last token.
func (b *Batch) extend(ctx context.Context, row int, prompt []tokenizer.Token, kept int) (logits sharded, err error) {
	defer func() {
		if err != nil {
			free(logits)
		}
	}()
	if err := b.crop(ctx, row, kept); err != nil {
		return logits, err
	}
	for at := kept; at < len(prompt); {
		columns := extendColumns(len(prompt) - at)
		n := min(columns, len(prompt)-at)
		if err := b.makeRoom(ctx, max(at+n, columns)); err != nil {
			return logits, err
		}
		ids, counts := make([][]tokenizer.Token, len(b.rows)), make([]int32, len(b.rows))
		for i := range ids {
			ids[i] = make([]tokenizer.Token, columns)
		}
		copy(ids[row][columns-n:], prompt[at:at+n])
		counts[row] = int32(n)
		program := b.g.startExtend(b.cache.plan, columns)
		if err := b.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
			return logits, err
		}
		stage.Tell(ctx, stage.Stage{Kind: stage.Prompt, Rows: 1, Columns: len(prompt) - kept})
		free(logits)
		logits = sharded{}
		err := b.clock.prefilling(func() error {
			out, err := b.update(ctx, program, ids, counts, []int32{int32(row)})
			if err == nil {
				logits = out[0]
			}
			return err
		})
		if err != nil {
			return logits, err
		}
		at += n
		b.rows[row].held = append(b.rows[row].held, prompt[at-n:at]...)
	}
	return logits, nil
}

// extendColumns is how many columns the next step has when n tokens are left to read: few sizes,
// each of which is compiled once, and hardly more columns than tokens.
func extendColumns(n int) int {
	switch {
	case n <= 32:
		return 16
	case n <= 128:
		return 64
	}
	return 256
}

// crop keeps so many tokens of a row.
func (b *Batch) crop(ctx context.Context, row, keep int) error {
	held := b.rows[row].held
	if keep == len(held) {
		return nil
	}
	cut := make([]int32, len(b.rows))
	cut[row] = int32(len(held) - keep)
	if _, err := b.update(ctx, b.g.startCrop(b.cache.plan), cut); err != nil {
		return err
	}
	b.rows[row].held = held[:keep:keep]
	return nil
}
