package llama

import (
	"context"
	"iter"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// loader reads weights into tensors of one dtype: on the backend's first device, or in host memory
// when backend is nil. Where the device uses host memory the tensors are filled in place, two at a
// time; for others one tensor is read while the one before it is on its way, so that at most two
// are in host memory.
type loader struct {
	files   *Files
	backend compute.Backend
	options LoadOptions // with nothing left open
}

// loaded is one weight, and in between the bytes for it.
type loaded struct {
	weight  modelfile.Weight
	staging []byte
	tensor  *tensors.Tensor
}

// tensors yields all weights, or an error as the last thing.
func (l *loader) tensors() iter.Seq2[loaded, error] {
	if l.backend != nil && !l.backend.HasSharedBuffers() {
		return l.uploaded()
	}
	return l.ahead()
}

// ahead makes tensors in host memory, two at a time, since parts of it keep one processor busy:
// GGUF's blocks are unpacked by one, and new memory is mapped.
func (l *loader) ahead() iter.Seq2[loaded, error] {
	return func(yield func(loaded, error) bool) {
		ctx, cancel := context.WithCancel(l.options.Context)
		defer cancel()
		reader := *l
		reader.options.Context = ctx
		type result struct {
			t   loaded
			err error
		}
		var pending []chan result
		defer func() {
			cancel()
			for _, p := range pending {
				if r := <-p; r.t.tensor != nil {
					_ = r.t.tensor.FinalizeAll() // only fails when it is gone already
				}
			}
		}()
		first := func() bool { // yields the oldest
			r := <-pending[0]
			pending = pending[1:]
			if err := l.options.Context.Err(); err != nil && r.err == nil { // it was made before
				_ = r.t.tensor.FinalizeAll()
				r.t.tensor, r.err = nil, l.files.About(r.t.weight, err)
			}
			return yield(r.t, r.err) && r.err == nil
		}
		for _, w := range l.files.Config().Weights() {
			made := make(chan result, 1)
			pending = append(pending, made)
			go func() {
				tensor, err := reader.inPlace(w)
				made <- result{loaded{weight: w, tensor: tensor}, err}
			}()
			if len(pending) == 2 && !first() {
				return
			}
		}
		for len(pending) > 0 && first() {
		}
	}
}

func (l *loader) shape(w modelfile.Weight) shapes.Shape {
	return shapes.Make(l.options.DType, w.Dims...)
}

func (l *loader) read(w modelfile.Weight, dst []byte) error {
	return l.files.Read(l.options.Context, w, l.options.as(), dst)
}

// inPlace makes a tensor in host memory, which may be the device's own.
func (l *loader) inPlace(w modelfile.Weight) (*tensors.Tensor, error) {
	if l.backend == nil {
		tensor := tensors.FromShape(l.shape(w))
		var err error
		if e := tensor.MutableBytes(func(dst []byte) { err = l.read(w, dst) }); e != nil {
			err = e
		}
		if err != nil {
			_ = tensor.FinalizeAll()
			return nil, err
		}
		return tensor, nil
	}
	tensor, elements, err := newInPlace(l.backend, l.shape(w))
	if err != nil {
		return nil, l.files.About(w, err)
	}
	if err = l.read(w, dtypes.UnsafeByteSliceFromAny(elements)); err != nil {
		_ = tensor.FinalizeAll()
		return nil, err
	}
	return tensor, nil
}

// newInPlace makes a tensor on a device that uses host memory, and gives its elements, a slice of
// them. They are to be written at once: before that they are whatever lay there.
func newInPlace(backend compute.Backend, shape shapes.Shape) (t *tensors.Tensor, elements any, err error) {
	// Not tensors.FromShapeForBackend: it writes zeros first, which takes as long as reading does.
	buffer, elements, err := backend.NewSharedBuffer(0, shape)
	if err != nil {
		return nil, nil, err
	}
	hugePages(dtypes.UnsafeByteSliceFromAny(elements))
	if t, err = tensors.FromBuffer(buffer); err != nil {
		_ = buffer.Finalize()
		return nil, nil, err
	}
	return t, elements, nil
}

// uploaded reads into two buffers in alternation: while one is filled, the other goes to the
// device.
func (l *loader) uploaded() iter.Seq2[loaded, error] {
	return func(yield func(loaded, error) bool) {
		ctx, cancel := context.WithCancel(l.options.Context)
		defer cancel()
		reader := *l
		reader.options.Context = ctx
		free, ready := make(chan []byte, 2), make(chan loaded)
		free <- nil
		free <- nil
		var failure error // of the reader; read after ready was closed
		go func() {
			defer close(ready)
			for _, w := range l.files.Config().Weights() {
				t, size := loaded{weight: w}, int(reader.shape(w).ByteSize())
				if t.staging = <-free; cap(t.staging) < size {
					t.staging = make([]byte, size)
				}
				t.staging = t.staging[:size]
				if failure = reader.read(w, t.staging); failure != nil {
					return
				}
				select {
				case ready <- t:
				case <-ctx.Done():
					return
				}
			}
		}()
		for t := range ready {
			var err error
			// returns when the data was copied
			t.tensor, err = tensors.FromRaw(l.backend, 0, l.shape(t.weight), t.staging)
			if err != nil {
				err = l.files.About(t.weight, err)
			}
			free <- t.staging
			if t.staging = nil; !yield(t, err) || err != nil {
				cancel()
				for range ready { // the reader may be about to hand one over
				}
				return
			}
		}
		if failure == nil {
			failure = l.options.Context.Err() // between two tensors
		}
		if failure != nil {
			yield(loaded{}, failure)
		}
	}
}
