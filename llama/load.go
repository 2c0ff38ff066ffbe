package llama

import (
	"context"
	"fmt"
	"io"
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
// device, or in host memory when backend is nil. Elements are converted while they are read; tensors go to the
// device one after the other, so that besides the result at most one tensor is in host memory. On an error, what
// was loaded is freed.
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
	all, total := f.source.tensors(), f.StoredBytes()
	var done int64
	for _, p := range f.config.parameters() {
		s := all[f.source.name(p)]
		t, err := l.load(p, s)
		if err != nil {
			w.Finalize()
			return nil, err
		}
		*p.slot(w) = t
		done += s.size
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

// load makes one tensor. Where host and device share memory it is filled in place.
func (l *loader) load(p parameter, s stored) (*tensors.Tensor, error) {
	if err := l.options.ctx.Err(); err != nil {
		return nil, fmt.Errorf("loading %s: %w", l.files.path, err)
	}
	t, err := tensors.FromShapeForBackend(l.backend, 0, shapes.Make(l.dtype, p.dims...))
	if err != nil {
		return nil, fmt.Errorf("%s: tensor %q: %w", s.file, s.name, err)
	}
	var fillErr error
	if err = t.MutableBytes(func(dst []byte) { fillErr = l.fill(dst, p, s) }); err == nil {
		err = fillErr
	}
	if err == nil && l.backend != nil && !t.IsShared() {
		if err = t.ToDevice(l.backend, 0); err == nil {
			t.FinalizeLocal()
		}
	}
	if err != nil {
		_ = t.FinalizeAll()
		return nil, fmt.Errorf("%s: tensor %q: %w", s.file, s.name, err)
	}
	return t, nil
}

// chunkBytes is how much is read and converted at once: small enough to stay in a processor's cache between the two,
// large enough for the disk.
const chunkBytes = 1 << 20

// fill reads a tensor into dst, in chunks of whole rows that several workers share.
func (l *loader) fill(dst []byte, p parameter, s stored) error {
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
