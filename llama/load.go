package llama

import (
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

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
// memory the tensors are filled in place; for others one tensor is read while the one before it is on its way, so that
// at most two are in host memory. On an error, what was loaded is freed.
func (f *Files) LoadWeights(backend compute.Backend, dtype dtypes.DType, options ...LoadOption) (*Weights, error) {
	switch dtype {
	case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
	default:
		return nil, usererr.New("weights as %s, want float32, float16 or bfloat16", strings.ToLower(dtype.String()))
	}
	o := loadOptions{ctx: context.Background(), progress: func(int64, int64) {}}
	for _, option := range options {
		option(&o)
	}
	l := loader{files: f, backend: backend, dtype: dtype, options: o}
	w := &Weights{Layers: make([]LayerWeights, f.config.Layers)}
	total := f.StoredBytes()
	var done int64
	for t, err := range l.tensors() {
		if err != nil {
			w.Finalize()
			return nil, err
		}
		*t.parameter.slot(w) = t.tensor
		done += t.stored.size
		o.progress(done, total)
	}
	return w, nil
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
	return func(yield func(loaded, error) bool) {
		for t := range l.list() {
			var err error
			if t.tensor, err = l.inPlace(t); !yield(t, l.named(t, err)) || err != nil {
				return
			}
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
	if err = l.fill(dtypes.UnsafeByteSliceFromAny(flat), t); err != nil {
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

// chunkBytes is how much is read and converted at once: small enough to stay in a processor's cache between the two,
// large enough for the disk.
const chunkBytes = 1 << 20

// fill reads a tensor into dst, in chunks of whole rows that several workers share.
func (l *loader) fill(dst []byte, t loaded) error {
	if err := l.options.ctx.Err(); err != nil {
		return err
	}
	p, s := t.parameter, t.stored
	source, err := l.files.source.open(s)
	if err != nil {
		return err
	}
	defer source.Close()
	convert := converter{from: s.dtype, to: l.dtype, roundFloat16: l.options.roundFloat16}
	rows, width := 1, p.dims[0]
	if len(p.dims) == 2 {
		rows, width = p.dims[0], p.dims[1]
	}
	var order func(int) int
	if p.rotaryHeads > 0 && l.files.source.pairedRows() {
		order = unpair(rows / p.rotaryHeads)
	}
	step := max(1, chunkBytes/(width*s.dtype.Size()))
	var next atomic.Int64
	var once sync.Once
	var failure error
	var failed atomic.Bool
	fail := func(err error) { once.Do(func() { failure = err; failed.Store(true) }) }
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), (rows+step-1)/step) {
		workers.Go(func() {
			c := chunk{source: source, convert: convert, dst: dst, width: width, order: order}
			for !failed.Load() {
				first := int(next.Add(int64(step))) - step
				if first >= rows {
					return
				}
				if err := l.options.ctx.Err(); err != nil {
					fail(err)
					return
				}
				if err := c.read(first, min(step, rows-first)); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	workers.Wait()
	return failure
}

// chunk is one worker's part of filling a tensor.
type chunk struct {
	source  io.ReaderAt
	convert converter
	dst     []byte        // the whole tensor
	width   int           // elements a row
	order   func(int) int // where a row of the file goes; nil: to the same place
	buffer  []byte
}

// read moves count rows, from row first of the file on.
func (c *chunk) read(first, count int) error {
	in, out := c.width*c.convert.from.Size(), c.width*c.convert.to.Size()
	if c.order == nil && c.convert.copies() {
		return readFull(c.source, c.dst[first*out:(first+count)*out], int64(first)*int64(in))
	}
	if len(c.buffer) < count*in {
		c.buffer = make([]byte, count*in)
	}
	src := c.buffer[:count*in]
	if err := readFull(c.source, src, int64(first)*int64(in)); err != nil {
		return err
	}
	for i := range count {
		row := first + i
		if c.order != nil {
			row = c.order(row)
		}
		if bad := c.convert.convert(c.dst[row*out:(row+1)*out], src[i*in:(i+1)*in]); bad >= 0 {
			return usererr.New("row %d, column %d is too large for %s (or for rounding to float16)", row, bad, c.convert.to)
		}
	}
	return nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil // ReadAt may say io.EOF at the very end
	}
	if err == io.EOF {
		return usererr.New("the file ends early: want %d bytes, came %d", len(p), n)
	}
	return err
}

// unpair gives, for heads of headDim rows, where a row goes when pairs of neighbours (2i, 2i+1) become (i, i + D/2):
// the inverse of permute in llama.cpp's convert_hf_to_gguf.py.
func unpair(headDim int) func(int) int {
	half := headDim / 2
	return func(row int) int {
		head, r := row/headDim, row%headDim
		return head*headDim + r%2*half + r/2
	}
}
