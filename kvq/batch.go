package kvq

import (
	"context"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Batch is a batch on the device whose rows come and go, as those of a server do (continuous
// batching): a row that has ended is given to another prompt while the others go on. In all else it
// is like a [Session]: graphs are compiled once for each shape, the cache is updated in place and
// grows when a row is full.
//
// Each row answers as it would alone, whatever the others do and whenever it came. Methods are not
// to be called at the same time. The zero value is not usable.
type Batch struct {
	runner  *runner
	plan    *Plan
	state   *held // in the order of plan.Shapes; nil: no row was inserted yet
	lengths []int // tokens of each row
	outputs *held // of the call before
	failed  bool  // the cache was lost in a call
	ended   bool  // Finalize was called
}

// NewBatch makes a batch of plan.Shape().Batch empty rows, each with room for plan.Shape().Capacity
// tokens at first. The plan's rows have lengths of their own (Shape.OwnLengths). store and step are
// as for [NewSession]. Nothing is compiled yet. The caller ends it with [Batch.Finalize].
func NewBatch(backend compute.Backend, store *model.Store, plan *Plan, step Step) (*Batch, error) {
	if !plan.shape.OwnLengths {
		return nil, usererr.New("kvq.NewBatch: want a plan with Shape.OwnLengths, got one whose rows grow together")
	}
	r, err := newRunner(backend, store, step)
	if err != nil {
		return nil, err
	}
	return &Batch{runner: r, plan: plan, lengths: make([]int, plan.shape.Batch)}, nil
}

// Length is how many tokens a row holds.
func (b *Batch) Length(row int) int { return b.lengths[row] }

// Plan is the layout of the cache as it is now: its capacity grows.
func (b *Batch) Plan() *Plan { return b.plan }

// Insert reads new prompts and puts them in the place of rows, whatever these hold. inputs are
// those of the model for a batch of len(rows) rows: inputs[0] is [len(rows), T, ...], and prompts
// that are shorter than T begin with padding, of which start says how many tokens; nil: none do.
// The outputs, for len(rows) rows, belong to the batch and live until its next call.
//
// The prompts are read in a cache of their own, in one call that ends with ctx; then the batch is
// as it was. Each number of rows and each T is compiled once: [PadLeft] brings prompts to one of a
// few lengths.
func (b *Batch) Insert(ctx context.Context, rows []int, start []int32, inputs ...any) ([]*tensors.Tensor, error) {
	if err := b.usable("Insert"); err != nil {
		return nil, err
	}
	if err := b.checkRows("Insert", rows); err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, usererr.New("kvq.Batch.Insert: no rows, want at least one")
	}
	if start == nil {
		start = make([]int32, len(rows))
	}
	in, err := newStepInputs("kvq.Batch.Insert", len(rows), inputs)
	if err != nil {
		return nil, err
	}
	defer in.free()
	if err := checkStart("kvq.Batch.Insert", start, len(rows), in.tokens); err != nil {
		return nil, err
	}
	shape := b.plan.shape
	shape.Batch, shape.Capacity, shape.OwnLengths = len(rows), in.tokens, false
	prompts, err := New(b.plan.config, shape)
	if err != nil {
		return nil, err
	}
	out, err := b.runner.run(ctx, b.runner.startPrefill(prompts, in.shapes), false, func() ([]any, error) { return append(in.args(), start), nil })
	if err != nil {
		return nil, err
	}
	n := len(prompts.arrays())
	read := hold(out[:n:n])
	defer read.free()
	places := make([]int32, len(rows))
	for i, row := range rows {
		places[i] = int32(row)
	}
	if err := b.makeRoom(ctx, in.tokens); err != nil {
		finalize(out[n:])
		return nil, err
	}
	if err := b.edit(ctx, b.plan, b.runner.startInsert(b.plan, prompts), append(read.lend(), places)...); err != nil {
		finalize(out[n:])
		return nil, err
	}
	for i, row := range rows {
		b.lengths[row] = in.tokens - int(start[i])
	}
	return b.keep(out[n:]), nil
}

// Step adds counts[row] tokens to each row, at most the t of inputs[0], [B, t, ...]: the last of
// its columns; what stands before them is padding. A row with a count of 0 rests. The outputs, for
// all rows, belong to the batch and live until its next call; those of columns that are no tokens
// have no meaning. Each t is compiled once. When the call fails, the batch is lost.
func (b *Batch) Step(ctx context.Context, counts []int, inputs ...any) ([]*tensors.Tensor, error) {
	if err := b.usable("Step"); err != nil {
		return nil, err
	}
	in, err := newStepInputs("kvq.Batch.Step", b.plan.shape.Batch, inputs)
	if err != nil {
		return nil, err
	}
	defer in.free()
	if len(counts) != len(b.lengths) {
		return nil, usererr.New("kvq.Batch.Step: tokens of %d rows, the batch has %d", len(counts), len(b.lengths))
	}
	tokens, longest := make([]int32, len(counts)), 0
	for row, n := range counts {
		if n < 0 || n > in.tokens {
			return nil, usererr.New("kvq.Batch.Step: %d tokens for row %d, want 0 to the %d of the first input", n, row, in.tokens)
		}
		tokens[row] = int32(n)
		if n > 0 {
			longest = max(longest, b.lengths[row]+n)
		}
	}
	if err := b.makeRoom(ctx, longest); err != nil {
		return nil, err
	}
	out, err := b.update(ctx, b.runner.startBatchStep(b.plan, in.shapes), append([]any{tokens}, in.args()...)...)
	if err != nil {
		return nil, err
	}
	n := len(b.plan.arrays())
	b.state = hold(out[:n:n])
	for row, more := range counts {
		b.lengths[row] += more
	}
	return b.keep(out[n:]), nil
}

// Crop forgets the newest n[row] tokens of each row.
func (b *Batch) Crop(ctx context.Context, n []int) error {
	if err := b.usable("Crop"); err != nil {
		return err
	}
	if len(n) != len(b.lengths) {
		return usererr.New("kvq.Batch.Crop: tokens of %d rows, the batch has %d", len(n), len(b.lengths))
	}
	cut := make([]int32, len(n))
	for row, n := range n {
		if n < 0 || n > b.lengths[row] {
			return usererr.New("kvq.Batch.Crop: %d tokens of row %d, want 0 to the %d that it holds", n, row, b.lengths[row])
		}
		cut[row] = int32(n)
	}
	p := b.runner.startEdit("crop", b.plan, shapes.Make(dtypes.Int32, len(n)), func(c Cache, n *graph.Node) { c.Crop(n) })
	if err := b.edit(ctx, b.plan, p, cut); err != nil {
		return err
	}
	for row, n := range n {
		b.lengths[row] -= n
	}
	return nil
}

// Reset empties rows. A row that is to be given to another prompt need not be empty: see Insert.
func (b *Batch) Reset(ctx context.Context, rows ...int) error {
	if err := b.usable("Reset"); err != nil {
		return err
	}
	if err := b.checkRows("Reset", rows); err != nil {
		return err
	}
	empty := make([]bool, len(b.lengths))
	for _, row := range rows {
		empty[row] = true
	}
	p := b.runner.startEdit("reset", b.plan, shapes.Make(dtypes.Bool, len(empty)), func(c Cache, rows *graph.Node) { c.Reset(rows) })
	if err := b.edit(ctx, b.plan, p, empty); err != nil {
		return err
	}
	for _, row := range rows {
		b.lengths[row] = 0
	}
	return nil
}

// Memory is what the cache takes on the device now; zero before the first row came.
func (b *Batch) Memory() (Memory, error) {
	if b.state == nil {
		return Memory{}, nil
	}
	return Measure(b.plan, b.state.list)
}

// Finalize frees what the batch holds on the device and the compiled graphs. It waits for calls
// that were given up.
func (b *Batch) Finalize() {
	if b.ended {
		return
	}
	b.ended = true
	b.outputs.free()
	b.state.free()
	b.outputs, b.state = nil, nil
	b.runner.release()
}

func (b *Batch) usable(method string) error {
	switch {
	case b.ended:
		return usererr.New("kvq.Batch.%s: the batch is finalized", method)
	case b.failed:
		return usererr.New("kvq.Batch.%s: a call before failed, and the cache with it: Finalize, and begin anew", method)
	}
	return nil
}

// checkRows refuses rows that the batch does not have, or that come twice.
func (b *Batch) checkRows(method string, rows []int) error {
	for i, row := range rows {
		if row < 0 || row >= len(b.lengths) {
			return usererr.New("kvq.Batch.%s: row %d, want 0 to %d", method, row, len(b.lengths)-1)
		}
		if slices.Contains(rows[:i], row) {
			return usererr.New("kvq.Batch.%s: row %d comes twice", method, row)
		}
	}
	return nil
}

// makeRoom makes the cache where there is none yet, and grows it until a row of so many tokens
// fits.
func (b *Batch) makeRoom(ctx context.Context, tokens int) error {
	plan, err := b.plan.withRoom(tokens)
	if err != nil {
		return err
	}
	if b.state == nil {
		out, err := b.runner.run(ctx, b.runner.startEmpty(plan), false, func() ([]any, error) { return []any{make([]int32, len(b.lengths))}, nil })
		if err != nil {
			return err
		}
		b.state, b.plan = hold(out), plan
	}
	if plan == b.plan {
		return nil
	}
	return b.edit(ctx, plan, b.runner.startGrow(b.plan, plan))
}

// update calls a program that writes a new cache in the place of the old one. Once it runs it is
// not given up.
func (b *Batch) update(ctx context.Context, p program, more ...any) ([]*tensors.Tensor, error) {
	if err := b.makeRoom(ctx, 0); err != nil {
		return nil, err
	}
	old := b.state
	out, err := b.runner.run(ctx, p, true, func() ([]any, error) {
		args, err := old.donate(b.runner.backend)
		if err == nil {
			b.state = nil
		}
		return append(args, more...), err
	})
	if b.state == nil {
		old.free()
		b.failed = err != nil
	}
	return out, err
}

// edit replaces the cache by another of as many arrays.
func (b *Batch) edit(ctx context.Context, plan *Plan, p program, more ...any) error {
	out, err := b.update(ctx, p, more...)
	if err != nil {
		return err
	}
	b.state, b.plan = hold(out), plan
	return nil
}

// keep takes the outputs of a call in the place of those before.
func (b *Batch) keep(outputs []*tensors.Tensor) []*tensors.Tensor {
	b.outputs.free()
	b.outputs = hold(outputs)
	return slices.Clone(outputs)
}
