package kvq

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// running is a cache on the device between calls: what a [Session] and a [Batch] have in common. It
// knows of slots and arrays, and not of which tokens are in them.
type running struct {
	runner *runner
	plan   *Plan
	state  *held // in the order of plan.Shapes; nil where there is no cache
	lost   bool  // a call failed, and the cache with it
	ended  bool  // Finalize was called

	updating *atomic.Bool // a call of update is under way
}

func newRunning(r *runner, plan *Plan) running {
	return running{runner: r, plan: plan, updating: new(atomic.Bool)}
}

// Plan is the layout of the cache as it is now: its capacity grows.
func (c *running) Plan() *Plan { return c.plan }

// Memory is what the cache takes on the device now; zero where there is none yet.
func (c *running) Memory() (Memory, error) {
	if c.state == nil {
		return Memory{}, nil
	}
	return Measure(c.plan, c.state.list)
}

// update calls a program that writes a new cache in the place of the old one. There is none until
// the caller holds the new one; the call is short and not given up. When it fails, the cache is
// lost, and its memory free, unless the program was not even called.
func (c *running) update(ctx context.Context, p program, more ...any) ([]*tensors.Tensor, error) {
	if !c.updating.CompareAndSwap(false, true) {
		return nil, errAnotherCall()
	}
	defer c.updating.Store(false)
	old, discard := c.state, func() {}
	if old == nil { // another goroutine has not brought it back
		return nil, errAnotherCall()
	}
	out, err := c.runner.run(ctx, p, true, func() (args []any, err error) {
		c.state = nil
		args, discard, err = old.donate(c.runner.backend)
		return append(args, more...), err
	})
	if c.state == nil {
		old.free()
		c.lost = err != nil
	}
	if err != nil {
		discard()
	}
	return out, err
}

func errAnotherCall() error {
	return usererr.New("kvq: another call has this cache: methods of a session or batch are not to be called at the same time")
}

// hold takes the cache out of what a call returned, and returns the rest.
func (c *running) hold(out []*tensors.Tensor) []*tensors.Tensor {
	n := len(c.plan.arrays())
	c.state.free()
	c.state, c.lost = hold(out[:n:n]), false
	return out[n:]
}

// edit replaces the cache by another of as many arrays.
func (c *running) edit(ctx context.Context, plan *Plan, p program, more ...any) error {
	out, err := c.update(ctx, p, more...)
	if err != nil {
		return err
	}
	c.plan = plan
	c.hold(out)
	return nil
}

// grow grows the cache until so many slots a row fit.
func (c *running) grow(ctx context.Context, slots int) error {
	plan, err := c.plan.withRoom(slots)
	if err != nil || plan == c.plan {
		return err
	}
	return c.edit(ctx, plan, c.runner.startGrow(c.plan, plan))
}

// forget frees the cache.
func (c *running) forget() {
	c.state.free()
	c.state, c.lost = nil, false
}

// fork is the same cache in other hands: each goes on on its own.
func (c *running) fork() running {
	c.runner.sessions.Add(1)
	f := newRunning(c.runner, c.plan)
	f.state = c.state.share()
	return f
}

// takeRows is a cache of rows of this one, in other hands, and the same rows of other arrays.
func (c *running) takeRows(ctx context.Context, rows []int32, others []*tensors.Tensor) (running, []*tensors.Tensor, error) {
	plan, err := c.plan.WithBatch(len(rows))
	if err != nil {
		return running{}, nil, err
	}
	f := newRunning(c.runner, plan)
	if c.state != nil {
		p := c.runner.startTake(c.plan, plan, shapesOf(others))
		out, err := c.runner.run(ctx, p, true, func() ([]any, error) {
			return append(append(c.state.lend(), anyOf(others)...), rows), nil
		})
		if err != nil {
			return running{}, nil, err
		}
		others = f.hold(out)
	}
	c.runner.sessions.Add(1)
	return f, others, nil
}

// load takes the place of the cache by what a file holds, of the same configuration and shape, but
// for its capacity. It returns how many slots of each row are filled, or of all.
func (c *running) load(method, path string) ([]int32, error) {
	plan, state, err := Load(path)
	if err != nil {
		return nil, err
	}
	slots, err := c.checkLoaded(method, path, plan, state)
	if err != nil {
		finalize(state)
		return nil, err
	}
	c.plan = plan.WithForm(c.plan.form)
	c.hold(state)
	return slots, nil
}

func (c *running) checkLoaded(method, path string, plan *Plan, state []*tensors.Tensor) ([]int32, error) {
	shape := plan.shape
	shape.Capacity = c.plan.shape.Capacity
	if !shape.Equal(c.plan.shape) || plan.config != c.plan.config {
		return nil, usererr.New("%s: %s holds another cache: %s", method, path, differences(plan, c.plan))
	}
	padding, err := int32s(state[1])
	if err != nil {
		return nil, err
	}
	for row, n := range padding {
		if shape.OwnLengths && n > 0 { // whose slots are more than its tokens
			return nil, usererr.New("%s: row %d of %s begins with padding of %d tokens, want a cache that Batch.Save wrote", method, row, path, n)
		}
	}
	return int32s(state[0])
}

// made are the results of a call of the loop.
type made struct {
	tokens []int32 // [N, B], the first steps rows
	sound  []bool  // [B]: logits were numbers
	done   []bool  // [B]: the row has ended
	steps  int
	took   time.Duration
}

// loop has the model read each row's newest token and makes at most n more, by the loop on the
// device: fewer where a window is full. more is how many follow altogether, and before how many of
// each row were picked before: it decides about random numbers.
func (c *running) loop(ctx context.Context, l loop, n, more, before int, newest []int32, done []bool, pad int32, picker *pick.Picker) (m made, err error) {
	p := c.runner.startLoop(c.plan, l)
	if err := c.flush(ctx, more, done); err != nil { // what it compiles is compiled beside
		return m, err
	}
	if err := p.Wait(ctx); err != nil {
		return m, err
	}
	start := time.Now()
	inputs := slices.Concat([]any{[]int32{int32(n)}, newest, done, []int32{pad}}, picker.Inputs(before, n, generate.MaxBlock), anyOf(l.inputs))
	out, err := c.update(ctx, p, inputs...)
	if err != nil {
		return m, err
	}
	rest := c.hold(out)
	defer finalize(rest)
	steps, err := tensors.CopyFlatData[int32](rest[3]) // waits for the device
	if err != nil {
		c.forget()
		c.lost = true
		return m, err
	}
	m.steps, m.took = int(steps[0]), time.Since(start)
	m.tokens, m.sound, m.done, err = readPicked(rest)
	return m, err
}

// readPicked are the results of a pick or of a loop: tokens, whether logits were numbers, which
// rows have ended.
func readPicked(out []*tensors.Tensor) (tokens []int32, sound, done []bool, err error) {
	if tokens, err = tensors.CopyFlatData[int32](out[0]); err != nil {
		return nil, nil, nil, err
	}
	if sound, err = tensors.CopyFlatData[bool](out[1]); err != nil {
		return nil, nil, nil, err
	}
	done, err = tensors.CopyFlatData[bool](out[2])
	return tokens, sound, done, err
}

func anyOf(list []*tensors.Tensor) []any {
	out := make([]any, len(list))
	for i, t := range list {
		out[i] = t
	}
	return out
}

func shapesOf(list []*tensors.Tensor) []shapes.Shape {
	var out []shapes.Shape
	for _, t := range list {
		out = append(out, t.Shape())
	}
	return out
}

// checkRows refuses rows that the cache does not have, and where once is set, rows that come twice.
func (c *running) checkRows(method string, rows []int, once bool) ([]int32, error) {
	picked := make([]int32, len(rows))
	for i, row := range rows {
		if row < 0 || row >= c.plan.shape.Batch {
			return nil, usererr.New("%s: row %d, want 0 to %d", method, row, c.plan.shape.Batch-1)
		}
		if once && slices.Contains(rows[:i], row) {
			return nil, usererr.New("%s: row %d comes twice", method, row)
		}
		picked[i] = int32(row)
	}
	return picked, nil
}
