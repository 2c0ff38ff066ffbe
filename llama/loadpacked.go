package llama

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// loadPacked reads weights that stay as the file packs them, on a device that uses host memory: a
// CPU. Values are exactly those of plain weights in float32.
func (m *Model) loadPacked(f *Files, o LoadOptions) error {
	l := packedLoader{files: f, model: m, options: o, total: f.StoredBytes()}
	for _, t := range onDevices(m.config) {
		var to []any
		for _, a := range arrays(t, m.dtype, 1, true) {
			x, elements, err := newInPlace(m.on.backend, a.shape)
			if err != nil {
				return err
			}
			to = append(to, elements)
			// the model frees them, whatever comes
			m.weights = append(m.weights, sharded{parts: []*tensors.Tensor{x}, axis: a.axis})
		}
		if err := l.read(t, to); err != nil {
			return err
		}
	}
	return nil
}

type packedLoader struct {
	files       *Files
	model       *Model
	options     LoadOptions
	done, total int64
	buffer      []byte // for what is read of the file; some rows of a weight at a time
}

// read fills the arrays of a tensor, whose elements are to.
func (l *packedLoader) read(t modelfile.Tensor, to []any) error {
	for i, w := range t.Parts {
		var err error
		switch t.Packs {
		case modelfile.Q4:
			err = l.rows(t, i, to)
		case modelfile.Q8:
			err = l.embeddings(w, to)
		default:
			err = l.vector(t, i, to[0].([]float32))
		}
		if err != nil {
			return err
		}
		l.done += l.files.StoredBytesOf(w)
		l.options.Progress(l.done, l.total)
	}
	return nil
}

// vector reads a part of a tensor that is not packed.
func (l *packedLoader) vector(t modelfile.Tensor, part int, to []float32) error {
	w := t.Parts[part]
	values := make([]float32, w.Elements())
	if err := l.files.Read(l.options.Context, w, l.options.as(), dtypes.UnsafeByteSliceFromAny(values)); err != nil {
		return err
	}
	for r := range w.Dims[0] {
		to[t.Row(part, r)] = values[r]
	}
	return nil
}

// pieceBytes is about how much is read of the file at once, so that no weight is in memory twice:
// the embeddings of the small model are 30 MB.
const pieceBytes = 2 << 20

// pieces reads a weight as the file has it, some rows at a time; those of a piece begin at a
// multiple of 64.
func (l *packedLoader) pieces(w modelfile.Weight, blockBytes int, use func(first, rows int, raw []byte)) error {
	all := w.Dims[0]
	each := max(64, pieceBytes/(w.Dims[1]/packedGroup*blockBytes)&^63)
	for first := 0; first < all; first += each {
		rows := min(each, all-first)
		raw, err := l.files.PackedRows(l.options.Context, w, first, first+rows, l.buffer)
		if err != nil {
			return err
		}
		l.buffer = raw
		use(first, rows, raw)
	}
	return nil
}

// rows fills words, scales and mins of one part of a tensor in Q4_1: parts over the same input lie
// one below the other.
func (l *packedLoader) rows(t modelfile.Tensor, part int, to []any) error {
	w := t.Parts[part]
	const blockBytes = 20
	words, scale, low := to[0].([]uint32), to[1].([]float16.Float16), to[2].([]float16.Float16)
	groups := w.Dims[1] / packedGroup
	out := len(scale) / groups
	at := make([]int, w.Dims[0]) // where each row of the file lies
	order := l.files.Order(w)
	for r := range at {
		row := r
		if order != nil {
			row = order(r)
		}
		at[r] = t.Row(part, row)
	}
	return l.pieces(w, blockBytes, func(first, rows int, raw []byte) {
		columns(groups, func(g int) {
			for r, at := range at[first : first+rows] {
				b := raw[(r*groups+g)*blockBytes:][:blockBytes]
				scale[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b))
				low[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b[2:]))
				for i := range 4 {
					words[(g*4+i)*out+at] = binary.LittleEndian.Uint32(b[4+4*i:])
				}
			}
		})
	})
}

// embeddings fills codes and scales of Q8_0 twice: by rows for looking tokens up, and with the
// vocabulary last for the output head.
func (l *packedLoader) embeddings(w modelfile.Weight, to []any) error {
	const blockBytes = 2 + packedGroup
	vocab, groups := w.Dims[0], w.Dims[1]/packedGroup
	q, d := to[0].([]int8), to[1].([]float16.Float16)
	qt, dt := to[2].([]uint32), to[3].([]float16.Float16)
	return l.pieces(w, blockBytes, func(begin, rows int, raw []byte) {
		columns(groups, func(g int) {
			// So many rows at a time that lines of the processor's cache are filled while they are
			// there.
			for first := begin; first < begin+rows; first += 64 {
				for r := first; r < min(first+64, begin+rows); r++ {
					b := raw[((r-begin)*groups+g)*blockBytes:][:blockBytes]
					scale := float16.FromBits(binary.LittleEndian.Uint16(b))
					d[r*groups+g], dt[g*vocab+r] = scale, scale
					to := q[(r*groups+g)*packedGroup:][:packedGroup]
					for i, code := range b[2:] {
						to[i] = int8(code)
					}
					for w := range packedGroup / 4 {
						qt[(g*packedGroup/4+w)*vocab+r] = binary.LittleEndian.Uint32(b[2+4*w:]) ^ 0x80808080 // plus signOffset
					}
				}
			}
		})
	})
}

// columns calls work for 0..n-1, on all processors.
func columns(n int, work func(int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				work(i)
			}
		})
	}
	workers.Wait()
}
