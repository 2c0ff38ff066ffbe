package kvq

import (
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// held are tensors on the device that sessions share until one of them goes on.
type held struct {
	list []*tensors.Tensor
	refs atomic.Int32
}

func hold(list []*tensors.Tensor) *held {
	h := &held{list: list}
	h.refs.Store(1)
	return h
}

// share is h for another session.
func (h *held) share() *held {
	if h != nil {
		h.refs.Add(1)
	}
	return h
}

// free gives the device memory back with the last session that holds it.
func (h *held) free() {
	if h != nil && h.refs.Add(-1) == 0 {
		finalize(h.list)
	}
}

func finalize(list []*tensors.Tensor) {
	for _, t := range list {
		_ = t.FinalizeAll() // only fails when it is gone already
	}
}

// donate are the tensors as arguments of a call that writes their successors in their place
// (gx.Reuse). Where another session holds them too, they are lent, and XLA copies them. Should the
// call fail, discard gives their memory back.
func (h *held) donate(backend compute.Backend) (args []any, discard func(), err error) {
	if h.refs.Load() != 1 {
		return h.lend(), func() {}, nil
	}
	var buffers []compute.Buffer
	discard = func() { gx.Discard(backend, buffers...) }
	for _, t := range h.list {
		buffer, err := t.Buffer(backend, 0)
		if err != nil {
			return nil, discard, err
		}
		arg, err := graph.DonateTensorBuffer(t, backend, 0)
		if err != nil {
			return nil, discard, err
		}
		args, buffers = append(args, arg), append(buffers, buffer)
	}
	return args, discard, nil
}

// lend are the tensors as arguments of a call that leaves them as they are.
func (h *held) lend() []any {
	args := make([]any, len(h.list))
	for i, t := range h.list {
		args[i] = t
	}
	return args
}
