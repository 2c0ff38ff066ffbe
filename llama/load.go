package llama

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// LoadOption changes how LoadWeights works.
type LoadOption func(*loadOptions)

type loadOptions struct {
	ctx          context.Context
	progress     func(done, total int64)
	roundFloat16 bool
}

func newLoadOptions(options []LoadOption) loadOptions {
	o := loadOptions{ctx: context.Background(), progress: func(int64, int64) {}}
	for _, option := range options {
		option(&o)
	}
	return o
}

// WithContext ends the loading early, with the context's error, when ctx is done (Ctrl-C).
func WithContext(ctx context.Context) LoadOption {
	return func(o *loadOptions) { o.ctx = ctx }
}

// WithProgress has report called after each tensor with the bytes read so far and those of all parameters, as they
// are stored. Calls do not overlap.
func WithProgress(report func(done, total int64)) LoadOption {
	return func(o *loadOptions) { o.progress = report }
}

// RoundFloat16 rounds every weight to float16 before it is converted to the dtype asked for: what a detour over
// float16 files does to a GGUF's weights.
func RoundFloat16() LoadOption {
	return func(o *loadOptions) { o.roundFloat16 = true }
}

// LoadWeights reads all parameters into tensors of dtype (Float32, Float16 or BFloat16): on the backend's first
// device, or in host memory when backend is nil. Elements are converted while they are read. Where the device uses host
// memory the tensors are filled in place, two at a time; for others one tensor is read while the one before it is on its way, so that
// at most two are in host memory. On an error, what was loaded is freed.
func (f *Files) LoadWeights(backend compute.Backend, dtype dtypes.DType, options ...LoadOption) (*Weights, error) {
	w := &Weights{Layers: make([]LayerWeights, f.config.Layers)}
	if err := f.load(backend, dtype, w, func() error { return nil }, options); err != nil {
		w.Finalize()
		return nil, err
	}
	return w, nil
}

// load fills w, and calls each after every tensor.
func (f *Files) load(backend compute.Backend, dtype dtypes.DType, w *Weights, each func() error, options []LoadOption) error {
	switch dtype {
	case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
	default:
		return usererr.New("weights as %s, want float32, float16 or bfloat16", strings.ToLower(dtype.String()))
	}
	o := newLoadOptions(options)
	l := loader{files: f, backend: backend, dtype: dtype, options: o}
	total := f.StoredBytes()
	var done int64
	for t, err := range l.tensors() {
		if err != nil {
			return err
		}
		*t.parameter.slot(w) = t.tensor
		if err := each(); err != nil {
			return err
		}
		done += t.stored.size
		o.progress(done, total)
	}
	return nil
}

type loader struct {
	files   *Files
	backend compute.Backend
	dtype   dtypes.DType
	options loadOptions
}

// loaded is one tensor, and in between the bytes for it.
type loaded struct {
	parameter parameter
	stored    stored
	staging   []byte
	tensor    *tensors.Tensor
}

// tensors yields all parameters, or an error as the last thing.
func (l *loader) tensors() iter.Seq2[loaded, error] {
	if l.backend != nil && !l.backend.HasSharedBuffers() {
		return l.uploaded()
	}
	return l.ahead()
}

// ahead makes tensors in host memory, two at a time, since parts of it keep one processor busy: GGUF's blocks are unpacked by one, and new memory is
// mapped.
func (l *loader) ahead() iter.Seq2[loaded, error] {
	return func(yield func(loaded, error) bool) {
		ctx, cancel := context.WithCancel(l.options.ctx)
		defer cancel()
		reader := *l
		reader.options.ctx = ctx
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
			if err := l.options.ctx.Err(); err != nil && r.err == nil { // it was made before
				_ = r.t.tensor.FinalizeAll()
				r.t.tensor, r.err = nil, err
			}
			return yield(r.t, l.named(r.t, r.err)) && r.err == nil
		}
		for t := range l.list() {
			made := make(chan result, 1)
			pending = append(pending, made)
			go func() {
				var err error
				t.tensor, err = reader.inPlace(t)
				made <- result{t, err}
			}()
			if len(pending) == 2 && !first() {
				return
			}
		}
		for len(pending) > 0 && first() {
		}
	}
}

func (l *loader) list() iter.Seq[loaded] {
	return func(yield func(loaded) bool) {
		all := l.files.source.tensors()
		for _, p := range l.files.config.parameters() {
			if !yield(loaded{parameter: p, stored: all[l.files.source.name(p)]}) {
				return
			}
		}
	}
}

// named adds file and tensor to an error.
func (l *loader) named(t loaded, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: tensor %q: %w", t.stored.file, t.stored.name, err)
}

func (l *loader) shape(t loaded) shapes.Shape { return shapes.Make(l.dtype, t.parameter.dims...) }

// inPlace makes a tensor in host memory, which may be the device's own.
func (l *loader) inPlace(t loaded) (*tensors.Tensor, error) {
	if l.backend == nil {
		tensor := tensors.FromShape(l.shape(t))
		var err error
		if e := tensor.MutableBytes(func(dst []byte) { err = l.fill(dst, t) }); e != nil {
			err = e
		}
		if err != nil {
			_ = tensor.FinalizeAll()
			return nil, err
		}
		return tensor, nil
	}
	// Not tensors.FromShapeForBackend: it writes zeros first, which takes as long as reading does.
	buffer, flat, err := l.backend.NewSharedBuffer(0, l.shape(t))
	if err != nil {
		return nil, err
	}
	memory := dtypes.UnsafeByteSliceFromAny(flat)
	hugePages(memory)
	if err = l.fill(memory, t); err != nil {
		_ = buffer.Finalize()
		return nil, err
	}
	return tensors.FromBuffer(buffer)
}

// uploaded reads into two buffers by turns: while one is filled, the other goes to the device.
func (l *loader) uploaded() iter.Seq2[loaded, error] {
	return func(yield func(loaded, error) bool) {
		ctx, cancel := context.WithCancel(l.options.ctx)
		defer cancel()
		reader := *l
		reader.options.ctx = ctx
		free, ready := make(chan []byte, 2), make(chan loaded)
		free <- nil
		free <- nil
		var failure error // of the reader; read after ready was closed
		go func() {
			defer close(ready)
			for t := range reader.list() {
				size := int(reader.shape(t).ByteSize())
				if t.staging = <-free; cap(t.staging) < size {
					t.staging = make([]byte, size)
				}
				t.staging = t.staging[:size]
				if failure = reader.named(t, reader.fill(t.staging, t)); failure != nil {
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
			t.tensor, err = tensors.FromRaw(l.backend, 0, l.shape(t), t.staging) // returns when the data was copied
			free <- t.staging
			if t.staging = nil; !yield(t, l.named(t, err)) || err != nil {
				cancel()
				for range ready { // the reader may be about to hand one over
				}
				return
			}
		}
		if failure == nil {
			failure = l.options.ctx.Err() // between two tensors
		}
		if failure != nil {
			yield(loaded{}, failure)
		}
	}
}
