package kvq

import (
	"context"
	"slices"

	"github.com/gomlx/compute"
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
// to be called at the same time; batches made by Fork are apart in this. The zero value is not
// usable.
type Batch struct {
	running
	lengths []int // tokens of each row: its slots, since it has no padding
	outputs *held // of the call before
}

// NewBatch makes a batch of plan.Shape().Batch empty rows, each with room for plan.Shape().Capacity
// tokens at first. The plan's rows have lengths of their own (Shape.OwnLengths). store and step are
// as for [NewSession]; step also reads the prompts of [Batch.Insert], whose rows are fewer, so it
// takes B from its inputs. Nothing is compiled yet. The caller ends it with [Batch.Finalize].
func NewBatch(backend compute.Backend, store *model.Store, plan *Plan, step Step) (*Batch, error) {
	if plan == nil || plan.shape.Layers == 0 {
		return nil, usererr.New("kvq.NewBatch: want a plan of New, got none")
	}
	if !plan.shape.OwnLengths {
		return nil, usererr.New("kvq.NewBatch: want a plan with Shape.OwnLengths, got one whose rows grow together")
	}
	r, err := newRunner(backend, store, step)
	if err != nil {
		return nil, err
	}
	return &Batch{running: newRunning(r, plan), lengths: make([]int, plan.shape.Batch)}, nil
}

// Length is how many tokens a row holds.
func (b *Batch) Length(row int) int { return b.lengths[row] }

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
	places, err := b.checkRows("kvq.Batch.Insert", rows, true)
	if err != nil {
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
	if err := b.makeRoom(ctx, in.tokens); err != nil {
		finalize(out[n:])
		return nil, err
	}
	if err := b.running.edit(ctx, b.plan, b.runner.startInsert(b.plan, prompts), append(read.lend(), places)...); err != nil {
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
	outputs := b.hold(out)
	for row, more := range counts {
		b.lengths[row] += more
	}
	return b.keep(outputs), nil
}

// Finalize frees what the batch holds on the device; with the last of a batch and its forks, the
// compiled graphs too. It waits for calls that were given up.
func (b *Batch) Finalize() {
	if b.ended {
		return
	}
	b.outputs.free()
	b.outputs = nil
	b.forget()
	b.ended = true
	b.runner.release()
}

func (b *Batch) usable(method string) error {
	switch {
	case b.ended:
		return usererr.New("kvq.Batch.%s: the batch is finalized", method)
	case b.lost:
		return usererr.New("kvq.Batch.%s: a call before failed, and the cache with it: Load one, or Finalize and begin anew", method)
	}
	return nil
}

// makeRoom makes the cache where there is none yet, and grows it until a row of so many tokens
// fits.
func (b *Batch) makeRoom(ctx context.Context, tokens int) error {
	if b.state != nil {
		return b.grow(ctx, tokens)
	}
	plan, err := b.plan.withRoom(tokens)
	if err != nil {
		return err
	}
	out, err := b.runner.run(ctx, b.runner.startEmpty(plan), false, func() ([]any, error) { return []any{make([]int32, len(b.lengths))}, nil })
	if err != nil {
		return err
	}
	b.plan = plan
	b.hold(out)
	return nil
}

// keep takes the outputs of a call in the place of those before.
func (b *Batch) keep(outputs []*tensors.Tensor) []*tensors.Tensor {
	b.outputs.free()
	b.outputs = hold(outputs)
	return slices.Clone(outputs)
}
