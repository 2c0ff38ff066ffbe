package kvq

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// editKey names a graph that changes a cache.
type editKey struct {
	what                   string
	batch, capacity, other int // other: the rows or the capacity of the result
}

// String is what the graph is for.
func (k editKey) String() string {
	return fmt.Sprintf("%s of a cache for %d rows of %d slots", k.what, k.batch, k.capacity)
}

// Crop forgets the newest n tokens of every row, as speculative decoding does with rejected drafts.
// Tokens that Generate returned count. Before the next Generate, the model has to be given a token.
func (s *Session) Crop(ctx context.Context, n int) error {
	if err := s.usable("Crop"); err != nil {
		return err
	}
	if n < 0 || n > s.Length() {
		return usererr.New("kvq.Session.Crop: %d tokens, want 0 to the %d that the cache holds", n, s.Length())
	}
	if n == 0 {
		return nil
	}
	if s.newest != nil {
		n--
	}
	if n > 0 {
		p := s.runner.startEdit("crop", s.plan, shapes.Make(dtypes.Int32), Cache.Crop)
		if err := s.edit(ctx, s.plan, p, int32(n)); err != nil {
			return err
		}
	}
	s.changed()
	s.slots -= n
	return nil
}

// Reorder makes row i a copy of row rows[i], as beam search does. Before the next Generate, the
// model has to be given a token, unless a Generate came before.
func (s *Session) Reorder(ctx context.Context, rows []int) error {
	if err := s.usable("Reorder"); err != nil {
		return err
	}
	if len(rows) != s.plan.shape.Batch {
		return usererr.New("kvq.Session.Reorder: %d rows, the cache has %d", len(rows), s.plan.shape.Batch)
	}
	picked, err := s.checkRows("kvq.Session.Reorder", rows, false)
	if err != nil || s.state == nil {
		return err
	}
	p := s.runner.startEdit("reorder", s.plan, shapes.Make(dtypes.Int32, len(rows)), Cache.Reorder)
	if err := s.edit(ctx, s.plan, p, picked); err != nil {
		return err
	}
	newest, reader := s.newest, s.reader
	s.changed()
	if newest != nil {
		s.newest, s.reader = pickRows(newest, rows), reader
	}
	return nil
}

// Fork is a second session that goes on from the same cache, on its own. Both share what is on the
// device until one of them goes on, and share what is compiled. rows, where given, are the rows
// that it consists of: Fork(ctx, 0, 0, 0) repeats the first row in a batch of three.
func (s *Session) Fork(ctx context.Context, rows ...int) (*Session, error) {
	if err := s.usable("Fork"); err != nil {
		return nil, err
	}
	picked, err := s.checkRows("kvq.Session.Fork", rows, false)
	if err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		if err := s.readNewest(ctx); err != nil {
			return nil, err
		}
	}
	f := &Session{slots: s.slots, newest: s.newest, reader: s.reader}
	if len(rows) == 0 {
		f.running, f.outputs = s.fork(), s.outputs.share()
		return f, nil
	}
	var logits []*tensors.Tensor // what Generate goes on from
	if s.outputs != nil && len(s.outputs.list) > 0 {
		if x := s.outputs.list[0]; x.Shape().Rank() > 0 && x.Shape().Dim(0) == s.plan.shape.Batch {
			logits = append(logits, x)
		}
	}
	if f.running, logits, err = s.takeRows(ctx, picked, logits); err != nil {
		return nil, err
	}
	if len(logits) > 0 {
		f.outputs = hold(logits)
	}
	return f, nil
}

func pickRows[T any](list []T, rows []int) []T {
	out := make([]T, len(rows))
	for i, row := range rows {
		out[i] = list[row]
	}
	return out
}

// Save writes the cache to a file, see the function [Save].
func (s *Session) Save(ctx context.Context, path string) error {
	if err := s.usable("Save"); err != nil {
		return err
	}
	if err := s.readNewest(ctx); err != nil {
		return err
	}
	if s.state == nil {
		return usererr.New("kvq.Session.Save: the cache is empty, want at least one token")
	}
	return Save(path, s.plan, s.state.list)
}

// Load takes the place of what the session holds by what Save wrote, of a cache of the same
// configuration and shape; its capacity may differ. When it fails, the session is as before.
func (s *Session) Load(path string) error {
	if s.ended {
		return usererr.New("kvq.Session.Load: the session is finalized")
	}
	slots, err := s.load("kvq.Session.Load", path)
	if err != nil {
		return err
	}
	s.changed()
	s.slots = int(slots[0])
	return nil
}

// startEdit begins to compile the graph of a method of [Cache] with one argument.
func (r *runner) startEdit(what string, plan *Plan, argument shapes.Shape, edit func(c Cache, argument *graph.Node)) program {
	state := plan.stateShapes
	key := editKey{what: what, batch: plan.shape.Batch, capacity: plan.shape.Capacity}
	return r.start(key, append(state, argument), len(state), func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		c := plan.From(in[:len(state)])
		edit(c, in[len(state)])
		return c.Nodes()
	})
}

// startTake begins to compile the graph that makes a cache of rows of another, and takes the same
// rows of other arrays.
func (r *runner) startTake(from, to *Plan, others []shapes.Shape) program {
	state := from.stateShapes
	key := editKey{fmt.Sprint("take", others), from.shape.Batch, from.shape.Capacity, to.shape.Batch}
	inputs := slices.Concat(state, others, []shapes.Shape{shapes.Make(dtypes.Int32, to.shape.Batch)})
	return r.start(key, inputs, 0, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		n, rows := len(state), in[len(in)-1]
		out := from.TakeRows(to, in[:n], rows)
		for _, x := range in[n : len(in)-1] {
			out = append(out, takeRows(x, rows, 0))
		}
		return out
	})
}
