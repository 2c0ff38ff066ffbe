package llama

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Packable returns nil where LoadPacked can read the model: a GGUF file with Q4_1 in all matrices of the blocks and Q8_0 in the embeddings,
// which are the output head too. Otherwise an error of one line names the first tensor that is another.
func (f *Files) Packable() error {
	all := f.source.tensors()
	if !f.config.TieEmbeddings {
		return usererr.New("%s: packed weights need an output head that is tied to the embeddings", f.path)
	}
	for _, p := range f.config.parameters() {
		s, want := all[f.source.name(p)], "Q4_1"
		switch {
		case len(p.dims) == 1:
			continue
		case p.dims[0] == f.config.VocabSize && p.hf == f.config.parameters()[0].hf:
			want = "Q8_0"
		}
		if s.format != want {
			return usererr.New("%s: tensor %q is %s, packed weights need %s", s.file, s.name, s.format, want)
		}
	}
	return nil
}

// LoadPacked reads a model whose weights stay as the file packs them (see Packable), on a device that uses host memory: a CPU. Values are
// exactly those of LoadWeights in float32, and the model computes in float32.
func (f *Files) LoadPacked(backend compute.Backend, options ...LoadOption) (*Model, error) {
	if err := f.Packable(); err != nil {
		return nil, err
	}
	o := newLoadOptions(options)
	if o.roundFloat16 {
		return nil, usererr.New("packed weights cannot be rounded to float16")
	}
	m, err := newModel(backend, f.Config(), dtypes.Float32, 1)
	if err != nil {
		return nil, err
	}
	m.packed = true
	l := packedLoader{files: f, model: m, options: o, byName: map[string]parameter{}}
	for _, p := range f.config.parameters() {
		l.byName[p.hf] = p
	}
	if err := l.load(); err != nil {
		m.Finalize()
		return nil, err
	}
	return m, nil
}

// packedNodes takes the packed weights off, in the order in which packedLoader.load makes them.
func (c Config) packedNodes(w *modelNodes, take func() *graph.Node) {
	q4 := func(out ...int) matrix { return matrix{codes: take(), scale: take(), min: take(), out: out} }
	w.embed, w.scale = take(), take()
	w.head = matrix{codes: take(), scale: take(), out: []int{c.VocabSize}}
	w.norm = take()
	for range c.Layers {
		var b blockNodes
		b.attnNorm = take()
		b.qkv = q4(c.KVHeads, c.Heads/c.KVHeads+2, c.HeadDim)
		b.o = q4(c.HiddenSize)
		b.mlpNorm = take()
		b.gateUp = q4(1, 2, c.IntermediateSize) // 1: devices
		b.down = q4(c.HiddenSize)
		w.blocks = append(w.blocks, b)
	}
}

type packedLoader struct {
	files   *Files
	model   *Model
	options loadOptions
	byName  map[string]parameter
	done    int64
}

func (l *packedLoader) load() error {
	c := l.files.config
	if err := l.embeddings(); err != nil {
		return err
	}
	if err := l.vector("model.norm.weight"); err != nil {
		return err
	}
	// Rows of queries, keys and values by key/value head, as joinLayer has them.
	group := c.Heads / c.KVHeads
	heads := func(count, first int) func(int) int {
		return func(row int) int {
			head, r := row/c.HeadDim, row%c.HeadDim
			return (head/count*(group+2)+first+head%count)*c.HeadDim + r
		}
	}
	shifted := func(by int) func(int) int { return func(row int) int { return row + by } }
	same := shifted(0)
	for n := range c.Layers {
		name := func(s string) string { return fmt.Sprintf("model.layers.%d.%s.weight", n, s) }
		steps := []func() error{
			func() error { return l.vector(name("input_layernorm")) },
			func() error {
				return l.matrix(
					part{name("self_attn.q_proj"), heads(group, 0)},
					part{name("self_attn.k_proj"), heads(1, group)},
					part{name("self_attn.v_proj"), heads(1, group+1)})
			},
			func() error { return l.matrix(part{name("self_attn.o_proj"), same}) },
			func() error { return l.vector(name("post_attention_layernorm")) },
			func() error {
				return l.matrix(part{name("mlp.gate_proj"), same}, part{name("mlp.up_proj"), shifted(c.IntermediateSize)})
			},
			func() error { return l.matrix(part{name("mlp.down_proj"), same}) },
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return nil
}

// vector loads what is not packed, as LoadWeights does.
func (l *packedLoader) vector(name string) error {
	p := l.byName[name]
	s := l.files.source.tensors()[l.files.source.name(p)]
	plain := loader{files: l.files, backend: l.model.on.backend, dtype: dtypes.Float32, options: l.options}
	t, err := plain.inPlace(loaded{parameter: p, stored: s})
	if err != nil {
		return fmt.Errorf("%s: tensor %q: %w", s.file, s.name, err)
	}
	return l.keep(t, s)
}

func (l *packedLoader) keep(t *tensors.Tensor, read ...stored) error {
	if err := t.ToDevice(l.model.on.backend, 0); err != nil {
		_ = t.FinalizeAll()
		return err
	}
	l.model.weights = append(l.model.weights, spread{parts: []*tensors.Tensor{t}, axis: whole})
	for _, s := range read {
		l.done += s.size
	}
	l.options.progress(l.done, l.files.StoredBytes())
	return nil
}

// part is a tensor of the file that becomes some rows of a matrix.
type part struct {
	name string
	row  func(int) int
}

// matrix makes words, scales and mins of Q4_1 tensors over the same input, one below the other.
func (l *packedLoader) matrix(parts ...part) error {
	out, in := 0, 0
	for _, p := range parts {
		d := l.byName[p.name].dims
		out, in = out+d[0], d[1]
	}
	const blockBytes = 20
	groups := in / packedGroup
	words := tensors.FromShape(shapes.Make(dtypes.Uint32, groups, 4, out))
	scale, low := tensors.FromShape(shapes.Make(dtypes.Float16, groups, out)), tensors.FromShape(shapes.Make(dtypes.Float16, groups, out))
	var read []stored
	for _, p := range parts {
		s, raw, err := l.raw(p.name)
		if err != nil {
			return err
		}
		read = append(read, s)
		row := p.row
		if d := l.byName[p.name]; d.rotaryHeads > 0 && l.files.source.pairedRows() {
			order := unpair(d.dims[0] / d.rotaryHeads)
			row = func(r int) int { return p.row(order(r)) }
		}
		flat(words, func(w []uint32) {
			flat(scale, func(d []float16.Float16) {
				flat(low, func(m []float16.Float16) {
					columns(groups, func(g int) {
						for r := range l.byName[p.name].dims[0] {
							b := raw[(r*groups+g)*blockBytes:][:blockBytes]
							at := row(r)
							d[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b))
							m[g*out+at] = float16.FromBits(binary.LittleEndian.Uint16(b[2:]))
							for i := range 4 {
								w[(g*4+i)*out+at] = binary.LittleEndian.Uint32(b[4+4*i:])
							}
						}
					})
				})
			})
		})
	}
	for i, t := range []*tensors.Tensor{words, scale, low} {
		if i > 0 {
			read = nil
		}
		if err := l.keep(t, read...); err != nil {
			return err
		}
	}
	return nil
}

// embeddings makes codes and scales twice: by rows for looking tokens up, and with the vocabulary last for the output head.
func (l *packedLoader) embeddings() error {
	p := l.files.config.parameters()[0]
	s, raw, err := l.raw(p.hf)
	if err != nil {
		return err
	}
	const blockBytes = 2 + packedGroup
	vocab, groups := p.dims[0], p.dims[1]/packedGroup
	rows, rowScale := tensors.FromShape(shapes.Make(dtypes.Int8, p.dims...)), tensors.FromShape(shapes.Make(dtypes.Float16, vocab, groups))
	head, headScale := tensors.FromShape(shapes.Make(dtypes.Uint32, groups, packedGroup/4, vocab)), tensors.FromShape(shapes.Make(dtypes.Float16, groups, vocab))
	flat(rows, func(q []int8) {
		flat(rowScale, func(d []float16.Float16) {
			flat(head, func(qt []uint32) {
				flat(headScale, func(dt []float16.Float16) {
					columns(groups, func(g int) {
						for first := 0; first < vocab; first += 64 { // so many rows that lines of the processor's cache are filled while they are there
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
	if err := l.keep(rows, s); err != nil {
		return err
	}
	for _, t := range []*tensors.Tensor{rowScale, head, headScale} {
		if err := l.keep(t); err != nil {
			return err
		}
	}
	return nil
}

// raw reads the blocks of a tensor.
func (l *packedLoader) raw(name string) (stored, []byte, error) {
	s := l.files.source.tensors()[l.files.source.name(l.byName[name])]
	if err := l.options.ctx.Err(); err != nil {
		return s, nil, err
	}
	r, err := openSection(s)
	if err != nil {
		return s, nil, err
	}
	defer r.Close()
	raw := make([]byte, s.size)
	if err := readFull(r, raw, 0); err != nil {
		return s, nil, fmt.Errorf("%s: tensor %q: %w", s.file, s.name, err)
	}
	return s, raw, nil
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
