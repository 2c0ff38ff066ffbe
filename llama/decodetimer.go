package llama

import (
	"context"
	"fmt"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// decodeTimer is an engine.DecodeTimer.
type decodeTimer struct {
	g      *Generator
	plan   *kvq.Plan
	memory kvq.Memory // on all devices together
	key    decodeKey
	fill   *computation // makes the cache
	newest []tokenizer.Token
	inputs []any // of picking
	steps  int

	compile time.Duration // of the decode loop and of the flush
}

// newDecodeTimer prepares a decode loop of steps tokens for batch rows that hold context tokens
// each, or about so many where rows have own lengths. Free it with Finalize.
func (g *Generator) newDecodeTimer(ctx context.Context, batch, contextTokens, steps int, own bool) (*decodeTimer, error) {
	if steps < 1 || steps > generate.MaxBlock {
		return nil, fmt.Errorf("a decode timer of %d steps, want 1 to %d", steps, generate.MaxBlock)
	}
	shape := g.shape(batch, contextTokens+generate.MaxBlock)
	shape.OwnLengths = own
	plan, err := g.planOf(shape)
	if err != nil {
		return nil, err
	}
	all, err := g.Plan(batch, shape.Capacity)
	if err != nil {
		return nil, err
	}
	t := &decodeTimer{g: g, plan: plan, memory: all.Memory(), steps: steps}
	gc := GenerateConfig{MaxNewTokens: generate.MaxBlock, EOS: []tokenizer.Token{}}
	pick := gc.picker(g.model.config, batch)
	t.key = decodeKey{pick: pick.Kind, batch: batch, capacity: shape.Capacity}
	start := time.Now()
	if err := waitAll(ctx, g.startLoop(plan, t.key)); err != nil {
		return nil, err
	}
	t.compile = time.Since(start)
	one := wholes(shapes.Make(dtypes.Int32))
	t.fill, err = g.model.on.compile("llama.synthetic", one, plan.HeadAxes(), func(one []*Node) []*Node {
		return kvqhook.Synthetic(plan, one[0].Graph(), contextTokens)
	})
	if err != nil {
		return nil, err
	}
	newest := make([]int32, batch)
	for i := range newest {
		newest[i] = int32(i % g.model.config.VocabSize)
	}
	t.newest, t.inputs = newest, pick.Inputs(0, steps, t.key.block())
	return t, nil
}

// Run makes the steps once and returns the time of one step. Every run starts from the same
// context.
func (t *decodeTimer) Run(ctx context.Context) (time.Duration, error) {
	cache, err := t.filled()
	if err != nil {
		return 0, err
	}
	defer cache.free()
	took, err := t.make(ctx, cache, t.steps)
	return took / time.Duration(t.steps), err
}

// Each makes the steps once as Run does, each in a call of its own, and returns the time of each.
func (t *decodeTimer) Each(ctx context.Context) ([]time.Duration, error) {
	cache, err := t.filled()
	if err != nil {
		return nil, err
	}
	defer cache.free()
	times := make([]time.Duration, t.steps)
	for i := range times {
		if times[i], err = t.make(ctx, cache, 1); err != nil {
			return nil, err
		}
	}
	return times, nil
}

// filled is a cache of the context.
func (t *decodeTimer) filled() (*session, error) {
	cache := &session{g: t.g, plan: t.plan, clock: &Timing{}}
	var err error
	if cache.state, err = t.fill.call(int32(1)); err != nil {
		return nil, err
	}
	// The first array is small, and reading it waits for the device.
	if _, err := read[int32](cache.state[0]); err != nil {
		cache.free()
		return nil, err
	}
	return cache, nil
}

// make makes steps, in one call of the loop where no window has to be flushed between them, and
// returns how long they took.
func (t *decodeTimer) make(ctx context.Context, cache *session, steps int) (time.Duration, error) {
	start := time.Now()
	for left := steps; left > 0; {
		made, err := cache.decode(ctx, t.key, left, left, t.newest, make([]bool, len(t.newest)), 0, t.inputs...) // waits for the device
		if err != nil {
			return 0, err
		}
		left -= made.steps
	}
	return time.Since(start), nil
}

// Compile is how long the decode loop took to compile, with the flush beside it.
func (t *decodeTimer) Compile() time.Duration { return t.compile }

// Memory returns the bytes of the cache, on all devices together.
func (t *decodeTimer) Memory() kvq.Memory { return t.memory }

// Live counts the bytes of the cache's arrays as they are on the first device.
func (t *decodeTimer) Live() (kvq.Memory, error) {
	state, err := t.fill.call(int32(1))
	if err != nil {
		return kvq.Memory{}, err
	}
	cache := &session{g: t.g, plan: t.plan, state: state}
	defer cache.free()
	devices, err := cache.memory()
	if err != nil {
		return kvq.Memory{}, err
	}
	return devices[0], nil
}

// Finalize frees what it compiled.
func (t *decodeTimer) Finalize() { t.fill.exec.Finalize() }
