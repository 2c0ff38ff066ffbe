package llama

import (
	"context"
	"iter"
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Stream reads a prompt in a row and yields what comes after it in blocks, as [Generator.Stream]
// does for a batch of one: Read, and Next until the row ends. The other rows have to rest. Result
// has the tokens of this row alone, with Result.Kept; its bytes are those of the whole cache.
//
// A loop that breaks, or a context that ends, ends the generation; the row holds what it has read.
func (b *Batch) Stream(ctx context.Context, row int, prompt []tokenizer.Token, gc GenerateConfig) iter.Seq2[Block, error] {
	return func(yield func(Block, error) bool) {
		for other := range b.rows {
			if other != row && b.Busy(other) {
				yield(Block{}, usererr.New("llama.Batch.Stream: a generation is under way in row %d: want Read and Next for several", other))
				return
			}
		}
		before, r := b.clock, &Result{Tokens: [][]tokenizer.Token{nil}, Lengths: []int{0}}
		took := func(block RowBlock) Block {
			fresh := block.Tokens
			r.Tokens[0] = append(r.Tokens[0], fresh...)
			r.Lengths[0] = len(r.Tokens[0])
			for _, logits := range block.Logits {
				r.Logits = append(r.Logits, [][]float32{logits})
			}
			r.Stop, r.Timing = block.Stop, b.clock.minus(before)
			return Block{Tokens: [][]tokenizer.Token{fresh}, Result: r}
		}
		kept, first, err := b.Read(ctx, row, prompt, gc)
		r.Kept = kept
		if usererr.Is(err) {
			yield(Block{}, err) // nothing was begun
			return
		}
		for err == nil {
			block := took(first)
			over := r.Stop != ""
			if err = b.sumUp(r, row, over); err != nil {
				break
			}
			if !yield(block, nil) {
				if b.End(row); !over {
					r.Stop = StopBreak
				}
				return
			}
			if over {
				return
			}
			var blocks []RowBlock
			if blocks, err = b.Next(ctx); err == nil {
				first = blocks[0]
			}
		}
		b.End(row)
		if r.Stop = StopFailed; ctx.Err() != nil {
			r.Stop = StopCancelled
		}
		r.Timing = b.clock.minus(before)
		_ = b.sumUp(r, row, true) // the error before says more
		yield(Block{Tokens: [][]tokenizer.Token{nil}, Result: r}, err)
	}
}

// sumUp says what the cache takes now, and at the end how many tokens are in codes.
func (b *Batch) sumUp(r *Result, row int, over bool) error {
	if b.cache == nil {
		return nil
	}
	if err := b.cache.sumUp(r); err != nil {
		return err
	}
	if over {
		coded, err := b.Coded()
		if err != nil {
			return err
		}
		r.CodedTokens = slices.Clone(coded[row : row+1])
	}
	return nil
}
