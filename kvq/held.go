package kvq

import (
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
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
// (gx.Reuse). Where another session holds them too, they are lent, and XLA copies them.
func (h *held) donate(backend compute.Backend) ([]any, error) {
	args := make([]any, len(h.list))
	alone := h.refs.Load() == 1
	for i, t := range h.list {
		args[i] = t
		if !alone {
			continue
		}
		var err error
		if args[i], err = graph.DonateTensorBuffer(t, backend, 0); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// lend are the tensors as arguments of a call that leaves them as they are.
func (h *held) lend() []any {
	args := make([]any, len(h.list))
	for i, t := range h.list {
		args[i] = t
	}
	return args
}
