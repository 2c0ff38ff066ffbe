package kvq

import (
	"context"
	"fmt"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Generate continues rows by a loop on the device until one of them ends, so that its place can be
// given away, or until each has config.MaxTokens new ones. newest is each row's newest token, which
// the model has not read yet; a row whose newest is negative rests.
//
// It returns the new tokens of each row, none for rows that rest, and which rows have ended with
// one of config.Stop. A row's last new token is not read yet: it is the next newest. Random numbers
// depend on config.Seed, on the row and on how many tokens this call has made. When ctx ends or a
// call fails, the tokens so far come with the error.
func (b *Batch) Generate(ctx context.Context, newest []int32, config Generation) (tokens [][]int32, ended []bool, err error) {
	rows := len(b.lengths)
	tokens, ended = make([][]int32, rows), make([]bool, rows)
	if err := b.usable("Generate"); err != nil {
		return tokens, ended, err
	}
	if len(newest) != rows {
		return tokens, ended, usererr.New("kvq.Batch.Generate: newest tokens of %d rows, the batch has %d", len(newest), rows)
	}
	loop, err := newLoop(config, rows)
	if err != nil {
		return tokens, ended, err
	}
	config = config.resolved()
	g := batchGeneration{batch: b, config: config, loop: loop, newest: make([]int32, rows), resting: make([]bool, rows)}
	g.pace = generate.Pace{Fixed: config.Block, Most: generate.MaxBlock}
	g.picker = config.picker(rows)
	for row, token := range newest {
		if g.newest[row] = token; token < 0 {
			g.newest[row], g.resting[row] = config.Pad, true
		}
	}
	for made, over := 0, false; made < config.MaxTokens && !over; {
		if err := ctx.Err(); err != nil {
			return tokens, ended, err
		}
		steps, err := g.decode(ctx, made, tokens, ended)
		if err != nil {
			return tokens, ended, err
		}
		made += steps
		for _, end := range ended {
			over = over || end
		}
		over = over || steps == 0 // all rows rest
	}
	return tokens, ended, nil
}

// batchGeneration is one [Batch.Generate].
type batchGeneration struct {
	batch   *Batch
	config  Generation // resolved
	loop    loop
	picker  *pick.Picker
	pace    generate.Pace
	newest  []int32
	resting []bool
}

// decode calls the loop once, after made new tokens of each row. It adds the new tokens to tokens,
// notes which rows have ended, and returns how many steps there were.
func (g *batchGeneration) decode(ctx context.Context, made int, tokens [][]int32, ended []bool) (int, error) {
	b := g.batch
	n, longest := min(g.pace.Next(), g.config.MaxTokens-made), 0
	for row, resting := range g.resting {
		if !resting {
			longest = max(longest, b.lengths[row]+n)
		}
	}
	if err := b.makeRoom(ctx, longest); err != nil {
		return 0, err
	}
	m, err := b.running.loop(ctx, g.loop, n, g.config.MaxTokens-made, made, g.newest, g.resting, g.config.Pad, g.picker)
	if err != nil {
		return 0, err
	}
	g.pace.Measured(m.steps, m.took)
	for row, resting := range g.resting {
		if !resting {
			b.lengths[row] += m.steps
		}
	}
	for row, resting := range g.resting {
		if resting {
			continue
		}
		if !m.sound[row] {
			return 0, fmt.Errorf("kvq.Batch.Generate: the model's logits for row %d are not numbers after %d tokens", row, b.lengths[row])
		}
		for step := range m.steps {
			g.newest[row] = m.tokens[step*len(g.resting)+row]
			tokens[row] = append(tokens[row], g.newest[row])
		}
		ended[row] = m.done[row]
	}
	return m.steps, nil
}
