package llama

import (
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

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
