package kvq

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Generate continues every row by a loop on the device, and returns the rows' new tokens. It goes
// on from the step before: from its outputs, or from the tokens that Generate has made. The tokens
// that it returns are part of the cache for all that follows; in rows that ended before the others,
// so is Pad.
//
// When ctx ends or a call fails, the tokens so far come with the error.
func (s *Session) Generate(ctx context.Context, config Generation) ([][]int32, error) {
	all := make([][]int32, s.plan.shape.Batch)
	for fresh, err := range s.Stream(ctx, config) {
		if err != nil {
			return all, err
		}
		for row, tokens := range fresh {
			all[row] = append(all[row], tokens...)
		}
	}
	return all, nil
}

// Stream is Generate in blocks of tokens, as they come: the new tokens of each row, none for rows
// that have ended. An error is the last thing that it yields. A loop that breaks ends the
// generation; the tokens that it has seen count.
func (s *Session) Stream(ctx context.Context, config Generation) iter.Seq2[[][]int32, error] {
	return func(yield func([][]int32, error) bool) {
		g, err := s.newGeneration(config)
		if err != nil {
			yield(nil, err)
			return
		}
		g.Blocks(ctx, g, func(fresh [][]int32, _ bool, err error) bool {
			switch {
			case err != nil:
				return yield(nil, err)
			case fresh == nil: // the first token is still to be made
				return true
			}
			s.newest, s.reader = g.Newest(), g
			return yield(fresh, nil)
		})
	}
}

// Prepare begins to compile the loop of a generation in the background, while a prompt is compiled
// and read, say. It is for a cache of the capacity that this one has.
func (s *Session) Prepare(config Generation) error {
	if err := s.usable("Prepare"); err != nil {
		return err
	}
	loop, err := s.newLoop(config)
	if err != nil {
		return err
	}
	s.runner.startLoop(s.plan, loop)
	return nil
}

// generation is one Generate: a generate.Batch.
type generation struct {
	generate.Run
	session *Session
	config  Generation // resolved
	pick    *pick.Picker
	loop    loop
}

var _ generate.Batch = (*generation)(nil)

// newGeneration checks what can be checked before anything is compiled.
func (s *Session) newGeneration(config Generation) (*generation, error) {
	if err := s.usable("Generate"); err != nil {
		return nil, err
	}
	if s.newest == nil && s.outputs == nil {
		return nil, usererr.New("kvq.Session.Generate: nothing to go on from, want a Prefill, a Step or a Generate just before")
	}
	if s.newest == nil && len(s.outputs.list) == 0 {
		return nil, usererr.New("kvq.Session.Generate: the model's step has no outputs, want logits [B, t, V] first")
	}
	loop, err := s.newLoop(config)
	if err != nil {
		return nil, err
	}
	config = config.resolved()
	rows := s.plan.shape.Batch
	g := &generation{Run: generate.NewRun(rows, config.MaxTokens), session: s, config: config, loop: loop, pick: config.picker(rows)}
	g.Pace = generate.Pace{Fixed: config.Block, Most: generate.MaxBlock}
	g.Pad, g.Before = config.Pad, s.newest
	return g, nil
}

func (g *generation) Capacity() int { return g.session.plan.shape.Capacity }
func (g *generation) Room() int     { return g.Capacity() - g.session.slots }

func (g *generation) Prepare(capacity int) error {
	larger, err := g.session.plan.WithCapacity(capacity)
	if err == nil {
		g.session.runner.startLoop(larger, g.loop)
	}
	return err
}

func (g *generation) Grow(ctx context.Context, capacity int) error {
	return g.session.grow(ctx, capacity)
}

// First picks the first token of each row from the outputs of the step before, where the newest
// token is not one that Generate has made.
func (g *generation) First(ctx context.Context) (first generate.Decoded, err error) {
	s := g.session
	// A generation that fits into a small cache gets its place at once: slots that are not in use
	// cost less than another graph.
	if want := generate.FirstCapacity(s.slots, g.Limit+1); g.Room() < g.Limit && want > g.Capacity() {
		if err := s.grow(ctx, want); err != nil {
			return first, err
		}
	}
	s.runner.startLoop(s.plan, g.loop)
	if s.newest != nil {
		return first, nil
	}
	logits := s.outputs.list[0]
	p := s.runner.startPick(logits.Shape(), s.plan.shape.Batch, g.loop.chooser)
	out, err := s.runner.run(ctx, p, true, func() ([]any, error) { return append([]any{logits}, g.pick.Inputs(0, 1, 1)...), nil })
	if err != nil {
		return first, err
	}
	defer finalize(out)
	tokens, sound, done, err := readPicked(out)
	if err != nil {
		return first, err
	}
	first.Steps = 1
	return first, g.check(&first, tokens, sound, done)
}

// Decode calls the loop.
func (g *generation) Decode(ctx context.Context, n int) (made generate.Decoded, err error) {
	return g.decode(ctx, n, g.Limit-len(g.Rows[0]), g.Newest(), g.Done)
}

// decode has the model read each row's newest token and makes at most n more, of wanted that
// follow.
func (g *generation) decode(ctx context.Context, n, wanted int, newest []int32, done []bool) (made generate.Decoded, err error) {
	s := g.session
	m, err := s.running.loop(ctx, g.loop, n, wanted, len(g.Rows[0]), newest, done, g.Pad, g.pick)
	if err != nil {
		return made, err
	}
	s.changed()
	s.slots += m.steps
	made.Steps, made.Took = m.steps, m.took
	return made, g.check(&made, m.tokens, m.sound, m.done)
}

// check takes the results of a pick or a loop over.
func (g *generation) check(made *generate.Decoded, tokens []int32, sound, done []bool) error {
	made.Tokens, made.Done = tokens, done
	if row := slices.Index(sound, false); row >= 0 && !g.Done[row] {
		return fmt.Errorf("kvq.Session.Generate: the model's logits for row %d are not numbers after %d new tokens", row, len(g.Rows[row]))
	}
	return nil
}

// readNewest has the model read the tokens that Generate has made last. What the loop picks after
// them is not used.
func (s *Session) readNewest(ctx context.Context) error {
	if s.newest == nil {
		return nil
	}
	if err := s.grow(ctx, s.slots+1); err != nil {
		return err
	}
	g := *s.reader
	g.session, g.pick = s, s.reader.config.picker(len(s.newest)) // its random numbers are not used up
	_, err := g.decode(ctx, 1, 1, s.newest, make([]bool, len(s.newest)))
	return err
}
