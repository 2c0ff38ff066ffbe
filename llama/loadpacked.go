package llama

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// loadPacked reads weights that stay as the file packs them, on a device that uses host memory: a
// CPU. Values are exactly those of plain weights in float32.
func (m *Model) loadPacked(f *Files, o LoadOptions) error {
	l := packedLoader{files: f, model: m, options: o, total: f.StoredBytes()}
	for _, t := range onDevices(m.config) {
		var to []*tensors.Tensor
		for _, a := range arrays(t, m.dtype, 1, true) {
			x := tensors.FromShape(a.shape)
			to = append(to, x)
			// the model frees them, whatever comes
			m.weights = append(m.weights, sharded{parts: []*tensors.Tensor{x}, axis: a.axis})
		}
		if err := l.read(t, to); err != nil {
			return err
		}
		for _, x := range to {
			if err := x.ToDevice(m.on.backend, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

type packedLoader struct {
	files       *Files
	model       *Model
	options     LoadOptions
	done, total int64
}

// read fills the arrays of a tensor.
func (l *packedLoader) read(t modelfile.Tensor, to []*tensors.Tensor) error {
	for i, w := range t.Parts {
		var err error
		switch t.Packs {
		case modelfile.Q4:
			err = l.rows(t, i, to)
		case modelfile.Q8:
			err = l.embeddings(w, to)
		default:
			err = l.vector(t, i, to[0])
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
func (l *packedLoader) vector(t modelfile.Tensor, part int, to *tensors.Tensor) error {
	w := t.Parts[part]
	values := make([]byte, 4*w.Elements())
	if err := l.files.Read(l.options.Context, w, l.options.as(), values); err != nil {
		return err
	}
	return to.MutableBytes(func(all []byte) {
		for r := range w.Dims[0] {
			copy(all[4*t.Row(part, r):], values[4*r:4*r+4])
		}
	})
}

// rows fills words, scales and mins of one part of a tensor in Q4_1: parts over the same input lie
// one below the other.
func (l *packedLoader) rows(t modelfile.Tensor, part int, to []*tensors.Tensor) error {
	w := t.Parts[part]
	raw, err := l.files.Packed(l.options.Context, w)
	if err != nil {
		return err
	}
	const blockBytes = 20
	groups, out := to[1].Shape().Dim(0), to[1].Shape().Dim(1)
	at := make([]int, w.Dims[0]) // where each row of the file lies
	order := l.files.Order(w)
	for r := range at {
		row := r
		if order != nil {
			row = order(r)
		}
		at[r] = t.Row(part, row)
	}
	flat(to[0], func(words []uint32) {
		flat(to[1], func(scale []float16.Float16) {
			flat(to[2], func(low []float16.Float16) {
				columns(groups, func(g int) {
					for r, at := range at {
						b := raw[(r*groups+g)*blockBytes:][:blockBytes]
						scale[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b))
						low[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b[2:]))
						for i := range 4 {
							words[(g*4+i)*out+at] = binary.LittleEndian.Uint32(b[4+4*i:])
						}
					}
				})
			})
		})
	})
	return nil
}

// embeddings fills codes and scales of Q8_0 twice: by rows for looking tokens up, and with the
// vocabulary last for the output head.
func (l *packedLoader) embeddings(w modelfile.Weight, to []*tensors.Tensor) error {
	raw, err := l.files.Packed(l.options.Context, w)
	if err != nil {
		return err
	}
	const blockBytes = 2 + packedGroup
	vocab, groups := w.Dims[0], w.Dims[1]/packedGroup
	flat(to[0], func(q []int8) {
		flat(to[1], func(d []float16.Float16) {
			flat(to[2], func(qt []uint32) {
				flat(to[3], func(dt []float16.Float16) {
					columns(groups, func(g int) {
						// So many rows at a time that lines of the processor's cache are filled
						// while they are there.
						for first := 0; first < vocab; first += 64 {
							for r := first; r < min(first+64, vocab); r++ {
								b := raw[(r*groups+g)*blockBytes:][:blockBytes]
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
			})
		})
	})
	return nil
}

// flat gives the elements of a tensor in host memory.
func flat[T any](t *tensors.Tensor, use func([]T)) {
	t.MustMutableFlatData(func(x any) { use(x.([]T)) })
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
