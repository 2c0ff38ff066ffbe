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

// inSteps reports whether a generation goes on in steps. A caller who fixes the size of blocks, or
// wants logits, gets the loop.
func (r *run) inSteps() bool {
	return r.g.model.byLayers() && r.Limit <= stepTokens && r.gc.BlockSize == 0 && !r.gc.KeepLogits && r.gc.TeacherForced == nil
}

// startSteps begins to compile the graphs of steps.
func (g *Generator) startSteps(plan *kvq.Plan) *stepGraphs { return g.startLayers(plan, 1, false) }

// step feeds the newest token of each row and returns the logits [B, V] of the next, to be freed by
// the caller. more is how many tokens follow.
func (s *session) step(ctx context.Context, graphs *stepGraphs, newest []int32, more int) (logits sharded, err error) {
	if err := s.makeRoom(ctx, more, nil); err != nil {
		return logits, err
	}
	if err := s.clock.compiling(func() error { return graphs.Wait(ctx) }); err != nil {
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
	if s.state, logits, err = graphs.step(context.WithoutCancel(ctx), ids, state); err != nil {
		return logits, err
	}
	s.used++
	s.waiting++
	return logits, nil
}

// decodeStep makes one token of each row.
func (r *run) decodeStep(ctx context.Context) (made generate.Decoded, err error) {
	if r.steps.plan != r.cache.plan { // it has grown
		r.steps = r.g.startSteps(r.cache.plan)
	}
	clock := &r.result.Timing
	compiled, start := clock.Compile, time.Now()
	logits, err := r.cache.step(ctx, r.steps, r.Newest(), r.Limit-len(r.Rows[0]))
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
