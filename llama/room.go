package llama

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
)

// Windows are flushed between the steps, by a graph of its own: what makes codes takes XLA as long
// to compile as all else of a step, and is not needed before a window is full.

// apart is how a cache's windows are flushed. On a GPU several rows flush inside of the loop: they
// become full at different steps, and leaving the loop for each was not measured there.
func (g *Generator) apart(plan *kvq.Plan) kvqhook.Apart {
	if plan.Shape().Batch > 1 && gpu.Of(g.model.on.backend).CUDA() {
		return kvqhook.Apart{Plan: plan}
	}
	return kvqhook.FlushedApart(plan)
}

// flushKey names the graph.
type flushKey struct {
	batch, capacity int
	own             bool // rows have lengths of their own
}

func (k flushKey) String() string {
	return fmt.Sprintf("making codes, a cache of %d tokens, %s", k.capacity, rowsText(k.batch))
}

// startFlush begins to compile it: the cache and, where rows have lengths of their own, which of
// them rest, bool [B], to the cache.
func (g *Generator) startFlush(plan *kvq.Plan) program {
	state, shape := g.model.on.layouts(plan), plan.Shape()
	key, in := flushKey{shape.Batch, shape.Capacity, shape.OwnLengths}, state
	if key.own {
		in = slices.Concat(state, wholes(shapes.Make(dtypes.Bool, key.batch)))
	}
	return g.programs.startPlain(key, in, plan.HeadAxes(), func(in []*Node) []*Node {
		gx.Reuse(in[:len(state)])
		var resting *Node
		if key.own {
			resting = in[len(state)]
		}
		return kvqhook.FlushedApart(plan).Flush(in[:len(state)], resting)
	})
}

// makeRoom flushes windows that are full, and begins to compile what does so before one of them is:
// so many more tokens follow. done are the rows that have ended; those with lengths of their own
// rest then.
func (s *session) makeRoom(ctx context.Context, more int, done []bool) error {
	full := s.g.apart(s.plan).Full
	if full == 0 {
		return nil
	}
	if !s.counted {
		if err := s.count(done); err != nil {
			return err
		}
	}
	if s.waiting+more <= full { // the last token is not read
		return nil
	}
	program := s.g.startFlush(s.plan)
	if s.waiting < full {
		return nil
	}
	if err := s.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return err
	}
	in := s.donate()
	if s.plan.Shape().OwnLengths {
		in = append(in, done)
	}
	out, err := s.g.programs.runPlain(context.WithoutCancel(ctx), program, in...)
	if err != nil {
		return err
	}
	s.replace(out)
	return s.count(done)
}

// count reads how many tokens wait in the fullest window.
func (s *session) count(done []bool) (err error) {
	var counts [3][]int32
	for i := range counts {
		if counts[i], err = read[int32](s.state[i]); err != nil {
			return err
		}
	}
	s.waiting, s.counted = s.g.apart(s.plan).Most(counts[0], counts[1], counts[2], done), true
	return nil
}
