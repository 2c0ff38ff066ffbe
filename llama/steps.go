package llama

import (
	"context"
	"time"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/kvq"
)

// stepTokens is up to how many new tokens a generation goes on in steps: each token is a call of
// each layer's graph. The decode loop saves a few milliseconds of each token (what calls cost), and
// its graph of all layers takes seconds to compile.
const stepTokens = 64

// steps goes on token by token through graphs of one layer each.
type steps struct {
	graphs *stepGraphs
	flush  []program // nil until windows may become full
	// waiting is the most tokens of a row that are neither sinks nor coded; -1: not known
	waiting int
}

// inSteps reports whether a generation goes on in steps. A caller who fixes the size of blocks, or
// wants logits, gets the loop.
func (r *run) inSteps() bool {
	return r.g.model.byLayers() && r.Limit <= stepTokens && r.gc.BlockSize == 0 && !r.gc.KeepLogits && r.gc.TeacherForced == nil
}

// startSteps begins to compile the graphs of steps.
func (g *Generator) startSteps(plan *kvq.Plan) *steps {
	return &steps{graphs: g.startLayers(plan, 1, false), waiting: -1}
}

// step feeds the newest token of each row to a session and returns the logits [B, V] of the next,
// to be freed by the caller. more is how many steps follow.
func (t *steps) step(ctx context.Context, s *session, newest []int32, more int) (logits sharded, err error) {
	if err := s.clock.compiling(func() error { return t.graphs.Wait(ctx) }); err != nil {
		return logits, err
	}
	if err := t.makeRoom(ctx, s, more); err != nil {
		return logits, err
	}
	stage.Tell(ctx, stage.Stage{Kind: stage.Tokens, Rows: s.batch()})
	ids := make([][]int32, len(newest))
	for i := range ids {
		ids[i] = newest[i : i+1]
	}
	state := s.state
	s.state = nil
	// A step is short; it is not abandoned, so that the cache is not lost.
	if s.state, logits, err = t.graphs.step(context.WithoutCancel(ctx), ids, state); err != nil {
		return logits, err
	}
	s.used++
	t.waiting++
	return logits, nil
}

// reaches reports whether a window is full after more steps.
func (t *steps) reaches(s *session, more int) (full bool, err error) {
	if t.graphs.ones[0].Full == 0 {
		return false, nil
	}
	if t.waiting < 0 {
		if t.waiting, err = s.waiting(); err != nil {
			return false, err
		}
	}
	return t.waiting+more >= t.graphs.ones[0].Full, nil
}

// makeRoom moves tokens from full windows to codes, and begins to compile what does so before it is
// needed.
func (t *steps) makeRoom(ctx context.Context, s *session, more int) error {
	if soon, err := t.reaches(s, more); err != nil || !soon {
		return err
	}
	if t.flush == nil {
		t.flush = t.graphs.startFlush()
	}
	if now, err := t.reaches(s, 0); err != nil || !now {
		return err
	}
	if err := s.clock.compiling(func() error { return waitAll(ctx, t.flush) }); err != nil {
		return err
	}
	state := s.state
	s.state = nil
	after, err := t.graphs.flush(context.WithoutCancel(ctx), t.flush, state)
	if err != nil {
		return err
	}
	s.state = after
	t.waiting, err = s.waiting()
	return err
}

// waiting is the most tokens of a row of a quantized cache that are neither sinks nor coded. Below
// 0 while only sinks are filled.
func (s *session) waiting() (most int, err error) {
	var counts [3][]int32 // see kvqhook.Layer.Shared
	for i := range counts {
		if counts[i], err = read[int32](s.state[i]); err != nil {
			return 0, err
		}
	}
	length, start, next := counts[0], counts[1], counts[2]
	for row := range start {
		waiting := int(length[row%len(length)] - start[row] - next[row])
		if row == 0 || waiting > most {
			most = waiting
		}
	}
	return most, nil
}

// decodeStep makes one token of each row.
func (r *run) decodeStep(ctx context.Context) (made generate.Decoded, err error) {
	if r.steps.graphs.plan != r.cache.plan { // it has grown
		r.steps = r.g.startSteps(r.cache.plan)
	}
	clock := &r.result.Timing
	compiled, start := clock.Compile, time.Now()
	logits, err := r.steps.step(ctx, r.cache, r.Newest(), r.Limit-len(r.Rows[0])-1)
	if err != nil {
		return made, err
	}
	defer free(logits)
	tokens, err := r.pickOne(ctx, logits)
	took := time.Since(start) - (clock.Compile - compiled)
	clock.Decode += took
	clock.Steps++
	return generate.Decoded{Steps: 1, Tokens: tokens, Took: took}, err
}
