package kvq

import (
	"context"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// edit calls a method of [Cache] with one argument on the batch's cache.
func (b *Batch) edit(ctx context.Context, what string, shape shapes.Shape, argument any, edit func(c Cache, argument *graph.Node)) error {
	if err := b.makeRoom(ctx, 0); err != nil {
		return err
	}
	return b.running.edit(ctx, b.plan, b.runner.startEdit(what, b.plan, shape, edit), argument)
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
	if err := b.edit(ctx, "crop", shapes.Make(dtypes.Int32, len(n)), cut, Cache.Crop); err != nil {
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
	if _, err := b.checkRows("kvq.Batch.Reset", rows, true); err != nil {
		return err
	}
	empty := make([]bool, len(b.lengths))
	for _, row := range rows {
		empty[row] = true
	}
	if err := b.edit(ctx, "reset", shapes.Make(dtypes.Bool, len(empty)), empty, Cache.Reset); err != nil {
		return err
	}
	for _, row := range rows {
		b.lengths[row] = 0
	}
	return nil
}

// Reorder makes row i a copy of row rows[i], as beam search does.
func (b *Batch) Reorder(ctx context.Context, rows []int) error {
	if err := b.usable("Reorder"); err != nil {
		return err
	}
	if len(rows) != len(b.lengths) {
		return usererr.New("kvq.Batch.Reorder: %d rows, the batch has %d", len(rows), len(b.lengths))
	}
	picked, err := b.checkRows("kvq.Batch.Reorder", rows, false)
	if err != nil {
		return err
	}
	if err := b.edit(ctx, "reorder", shapes.Make(dtypes.Int32, len(rows)), picked, Cache.Reorder); err != nil {
		return err
	}
	b.lengths = pickRows(b.lengths, rows)
	return nil
}

// Fork is a second batch that goes on from the same cache, on its own. Both share what is on the
// device until one of them goes on, and share what is compiled. rows, where given, are the rows
// that it consists of: Fork(ctx, 0, 0, 0) is a batch of three copies of the first row.
func (b *Batch) Fork(ctx context.Context, rows ...int) (*Batch, error) {
	if err := b.usable("Fork"); err != nil {
		return nil, err
	}
	picked, err := b.checkRows("kvq.Batch.Fork", rows, false)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return &Batch{running: b.fork(), lengths: slices.Clone(b.lengths)}, nil
	}
	taken, _, err := b.takeRows(ctx, picked, nil)
	if err != nil {
		return nil, err
	}
	return &Batch{running: taken, lengths: pickRows(b.lengths, rows)}, nil
}

// Save writes the cache of all rows to a file, see the function [Save].
func (b *Batch) Save(path string) error {
	if err := b.usable("Save"); err != nil {
		return err
	}
	if b.state == nil {
		return usererr.New("kvq.Batch.Save: the batch is empty, want at least one row that was inserted")
	}
	return Save(path, b.plan, b.state.list)
}

// Load takes the place of all rows by what Save wrote, of a batch of as many rows, of the same
// configuration and shape; its capacity may differ. When it fails, the batch is as before.
func (b *Batch) Load(path string) error {
	if b.ended {
		return usererr.New("kvq.Batch.Load: the batch is finalized")
	}
	slots, err := b.load("kvq.Batch.Load", path)
	if err != nil {
		return err
	}
	for row := range b.lengths {
		b.lengths[row] = int(slots[row])
	}
	return nil
}
