package modelfile

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// chunkBytes is how much is read and converted at once: small enough to stay in a processor's cache
// between the two, large enough for the disk.
const chunkBytes = 1 << 20

// As says what the elements of a weight become when they are read.
type As struct {
	// DType is float32, float16 or bfloat16.
	DType dtypes.DType
	// RoundFloat16 rounds every element to float16 first: what a detour over float16 files does to
	// a GGUF's weights.
	RoundFloat16 bool
}

// Validate checks the dtype.
func (a As) Validate() error {
	switch a.DType {
	case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
		return nil
	}
	return usererr.New("weights as %s, want float32, float16 or bfloat16", strings.ToLower(a.DType.String()))
}

// Read reads a weight into dst, row by row, little-endian, in chunks that several workers share. It
// ends early when ctx is done. An error says which file and tensor it is about.
func (f *Files) Read(ctx context.Context, w Weight, as As, dst []byte) error {
	if err := as.Validate(); err != nil {
		return err
	}
	s := f.stored(w)
	if want := w.Elements() * int64(as.DType.Size()); int64(len(dst)) != want {
		return fmt.Errorf("%s: tensor %q: %d bytes to read into, want %d", s.file, s.name, len(dst), want)
	}
	return f.About(w, f.fill(ctx, w, as, dst))
}

func (f *Files) stored(w Weight) stored { return f.source.tensors()[f.source.name(w)] }

// StoredBytesOf is the size of one weight in the files.
func (f *Files) StoredBytesOf(w Weight) int64 { return f.stored(w).size }

// About says in an error which file and tensor it is about.
func (f *Files) About(w Weight, err error) error {
	if err == nil {
		return nil
	}
	s := f.stored(w)
	return fmt.Errorf("%s: tensor %q: %w", s.file, s.name, err)
}

// Order says where row r of a weight's tensor in the files belongs: the files of some architectures
// have the rows of a head in another order (see Arch.PairedRows). nil: where it is.
func (f *Files) Order(w Weight) func(r int) int {
	if w.RotaryHeads > 0 && f.source.pairedRows() {
		return unpair(w.Dims[0] / w.RotaryHeads)
	}
	return nil
}

// fill is Read without names in its errors.
func (f *Files) fill(ctx context.Context, w Weight, as As, dst []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s := f.stored(w)
	source, err := f.source.open(s)
	if err != nil {
		return err
	}
	defer source.Close()
	convert := converter{from: s.dtype, to: as.DType, roundFloat16: as.RoundFloat16}
	rows, width := 1, w.Dims[0]
	order := f.Order(w)
	if len(w.Dims) == 2 || order != nil {
		rows = w.Dims[0]
		width = int(w.Elements()) / rows
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
				if err := ctx.Err(); err != nil {
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

// unpair gives, for heads of headDim rows, where a row goes when pairs of neighbours (2i, 2i+1)
// become (i, i + D/2): the inverse of permute in llama.cpp's convert_hf_to_gguf.py.
func unpair(headDim int) func(int) int {
	half := headDim / 2
	return func(row int) int {
		head, r := row/headDim, row%headDim
		return head*headDim + r%2*half + r/2
	}
}
