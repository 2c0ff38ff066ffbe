package llama

import (
	"context"
	"time"

	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Next makes new tokens for all rows that are under way, by one call of the loop on the device: for
// about a quarter of a second, or until one of them ends. It returns a block for each of them, none
// where all rest. A row that has ended rests and still holds its text.
//
// A call that has begun is not given up when ctx ends. When it fails, what the rows hold is lost
// and all rest; the batch may be used anew.
func (b *Batch) Next(ctx context.Context) ([]RowBlock, error) {
	n, wanted, longest, fixed, key := b.pace.Most, 0, 0, 0, decodeKey{}
	newest, resting := make([]tokenizer.Token, len(b.rows)), make([]bool, len(b.rows))
	pickers, counts := make([]*pick.Picker, len(b.rows)), make([]int, len(b.rows))
	for row := range b.rows {
		made := b.rows[row].made
		if made == nil {
			newest[row], resting[row] = tokenizer.Token(b.g.model.config.PadID), true
			continue
		}
		n, wanted = min(n, made.limit-made.count), max(wanted, made.limit-made.count)
		if made.gc.BlockSize > 0 && (fixed == 0 || made.gc.BlockSize < fixed) {
			fixed = made.gc.BlockSize
		}
		longest = max(longest, len(b.rows[row].held))
		newest[row], pickers[row], counts[row] = made.newest, made.pick, made.count
		key.keepLogits = key.keepLogits || made.gc.KeepLogits
	}
	if longest == 0 {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.pace.Fixed = fixed
	n = min(n, b.pace.Next(), key.block())
	if err := b.makeRoom(ctx, longest+n); err != nil {
		return nil, err
	}
	key.pick = pick.Together(pickers)
	inputs := pick.InputsTogether(key.pick, pickers, counts, n, key.block())
	compiled, start := b.clock.Compile, time.Now()
	out, err := b.cache.decode(ctx, key, n, wanted, newest, resting, tokenizer.Token(b.g.model.config.PadID), inputs...)
	if err != nil {
		if len(b.cache.state) == 0 {
			b.lose()
		}
		return nil, err
	}
	defer free(out.logits)
	took := time.Since(start) - (b.clock.Compile - compiled)
	b.clock.Decode += took
	b.clock.Steps += out.steps
	b.pace.Measured(out.steps, took)
	var logits [][][]float32
	if key.keepLogits {
		if logits, err = readLogits(out.logits, out.steps, len(b.rows)); err != nil {
			return nil, err
		}
	}
	var blocks []RowBlock
	for row := range b.rows {
		made := b.rows[row].made
		if made == nil {
			continue
		}
		if !out.sound[row] {
			err = b.g.notNumbers(row, made.count)
			b.rows[row].made = nil
			continue
		}
		tokens := make([]tokenizer.Token, out.steps)
		for step := range tokens {
			tokens[step] = out.tokens[step*len(b.rows)+row]
		}
		// The loop has read the newest token before, and all new ones but the last.
		b.rows[row].held = append(append(b.rows[row].held, made.newest), tokens[:len(tokens)-1]...)
		blocks = append(blocks, b.take(row, tokens, logits, row))
	}
	return blocks, err
}

// take adds new tokens to a row's generation, as far as it goes. logits are [n][B][V], of which the
// row's are at place, or none.
func (b *Batch) take(row int, tokens []tokenizer.Token, logits [][][]float32, place int) RowBlock {
	made, block := b.rows[row].made, RowBlock{Row: row}
	for i, token := range tokens {
		block.Tokens = append(block.Tokens, token)
		if made.gc.KeepLogits {
			block.Logits = append(block.Logits, logits[i][place])
		}
		made.pick.Saw(0, token)
		made.newest = token
		made.count++
		switch {
		case made.text != nil && made.text.push(token):
			block.Stop = StopString
		case made.pick.Ends(token):
			block.Stop = StopEOS
		case made.count >= made.limit:
			block.Stop = made.stop
		}
		if block.Stop != "" {
			b.rows[row].made = nil
			break
		}
	}
	return block
}
