package kvq_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// tokenData is what a model hands to a cache for one row: queries, keys and values of each token,
// [layer][token][head][D], without padding, already rounded to the cache's dtype.
type rowData struct{ queries, keys, values [][][][]float32 }

// inputs is the data of a batch. Row b begins with start[b] slots of padding, which carry values of
// their own that must not matter.
type inputs struct {
	layers, heads, kvHeads int
	dim, valueDim          int
	layout                 Layout
	dtype                  dtypes.DType
	start                  []int
	rows                   []rowData
	padding                float32 // what padding slots hold
}

// makeInputs draws data for slots slots a row. Keys have channels of different size, as real ones
// do.
func makeInputs(seed uint64, s Shape, heads, slots int, start ...int) *inputs {
	in := &inputs{layers: s.Layers, heads: heads, kvHeads: s.KVHeads, dim: s.HeadDim, valueDim: valueDim(s), layout: s.Layout, dtype: s.DType, start: start, padding: 1e4}
	for row := range start {
		rng := rand.New(rand.NewPCG(seed, uint64(row)))
		draw := func(heads, dim int, size func(d int) float64) [][][][]float32 {
			out := make([][][][]float32, s.Layers)
			for layer := range out {
				for range slots - start[row] {
					var token [][]float32
					for range heads {
						x := make([]float32, dim)
						for d := range x {
							x[d] = roundedTo(s.DType, float32(rng.NormFloat64()*size(d)))
						}
						token = append(token, x)
					}
					out[layer] = append(out[layer], token)
				}
			}
			return out
		}
		one := func(int) float64 { return 1 }
		in.rows = append(in.rows, rowData{draw(heads, s.HeadDim, one), draw(s.KVHeads, s.HeadDim, func(d int) float64 { return float64(1+d%4) / 3 }), draw(s.KVHeads, valueDim(s), one)})
	}
	return in
}

// valueDim is the number of elements of a value.
func valueDim(s Shape) int {
	if s.ValueDim > 0 {
		return s.ValueDim
	}
	return s.HeadDim
}

func roundedTo(dtype dtypes.DType, x float32) float32 {
	switch dtype {
	case dtypes.Float16:
		return float16.FromFloat32(x).Float32()
	case dtypes.BFloat16:
		return bfloat16.FromFloat32(x).Float32()
	}
	return x
}

// row takes some rows of the batch, without their padding where alone is set.
func (in *inputs) pick(alone bool, rows ...int) *inputs {
	out := *in
	out.rows, out.start = nil, nil
	for _, r := range rows {
		out.rows = append(out.rows, in.rows[r])
		out.start = append(out.start, in.start[r])
		if alone {
			out.start[len(out.start)-1] = 0
		}
	}
	return &out
}

// tensors lays out slots [from, to) as the graphs below want them: queries, keys and values of each
// layer, [B, heads, t, D].
func (in *inputs) tensors(from, to int) []any {
	var out []any
	for layer := range in.layers {
		for _, part := range []struct {
			heads, dim int
			of         func(r rowData) [][][]float32
		}{
			{in.heads, in.dim, func(r rowData) [][][]float32 { return r.queries[layer] }},
			{in.kvHeads, in.dim, func(r rowData) [][][]float32 { return r.keys[layer] }},
			{in.kvHeads, in.valueDim, func(r rowData) [][][]float32 { return r.values[layer] }},
		} {
			var flat []float32
			add := func(b, head, slot int) {
				if index := slot - in.start[b]; index >= 0 {
					flat = append(flat, part.of(in.rows[b])[index][head]...)
				} else {
					flat = append(flat, slices.Repeat([]float32{in.padding}, part.dim)...)
				}
			}
			axes := []int{len(in.rows), part.heads, to - from, part.dim}
			for b := range in.rows {
				if in.layout == BSHD {
					axes[1], axes[2] = to-from, part.heads
					for slot := from; slot < to; slot++ {
						for head := range part.heads {
							add(b, head, slot)
						}
					}
					continue
				}
				for head := range part.heads {
					for slot := from; slot < to; slot++ {
						add(b, head, slot)
					}
				}
			}
			out = append(out, tensorOf(in.dtype, flat, axes...))
		}
	}
	return out
}

func tensorOf(dtype dtypes.DType, x []float32, dims ...int) *tensors.Tensor {
	switch dtype {
	case dtypes.Float16:
		return tensors.FromFlatDataAndDimensions(converted(x, float16.FromFloat32), dims...)
	case dtypes.BFloat16:
		return tensors.FromFlatDataAndDimensions(converted(x, bfloat16.FromFloat32), dims...)
	}
	return tensors.FromFlatDataAndDimensions(x, dims...)
}

func converted[S, T any](x []S, f func(S) T) []T {
	out := make([]T, len(x))
	for i, v := range x {
		out[i] = f(v)
	}
	return out
}

func (in *inputs) starts() []int32 {
	var out []int32
	for _, s := range in.start {
		out = append(out, int32(s))
	}
	return out
}

// session drives a cache through separate graph calls, as a program would.
type session struct {
	t      testing.TB
	on     compute.Backend // nil: XLA
	plan   *Plan
	in     *inputs
	slots  int // filled so far
	state  []*tensors.Tensor
	out    []oracle.Tensor // of the last step, per layer [B, H, t, D]
	masks  *testMasks      // of the steps to come; nil: none
	graphs map[string]*Exec
}

func newSession(t testing.TB, plan *Plan, in *inputs) *session {
	t.Helper()
	return &session{t: t, plan: plan, in: in, graphs: map[string]*Exec{}}
}

func newPlan(t testing.TB, c Config, s Shape) *Plan {
	t.Helper()
	p, err := New(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *session) backend() compute.Backend {
	if s.on != nil {
		return s.on
	}
	return testbackend.XLA(s.t)
}

// fork is another session that goes on from here.
func (s *session) fork() *session {
	other := *s
	return &other
}

// run executes a graph of this session's plan, compiled once per name and input shapes. Its inputs
// are the state, then args.
func (s *session) run(name string, build func(state, args []*Node) []*Node, state []*tensors.Tensor, args ...any) []*tensors.Tensor {
	s.t.Helper()
	n := len(state)
	exec := s.graphs[name]
	if exec == nil {
		exec = MustNewExec(s.backend(), func(nodes []*Node) []*Node { return build(nodes[:n], nodes[n:]) })
		s.graphs[name] = exec
	}
	all := make([]any, 0, n+len(args))
	for _, x := range state {
		all = append(all, x)
	}
	out, err := exec.Exec(append(all, args...)...)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	return out
}

// attendAll appends and attends with queries, keys and values of each layer in turn, and ends the
// step.
func attendAll(c Cache, qkv []*Node) []*Node {
	var out []*Node
	for layer := range len(qkv) / 3 {
		c.Layer(layer).Append(qkv[3*layer+1], qkv[3*layer+2])
		c.Layer(layer).WeighKeys(func() *Node { return weightOf(qkv[3*layer+1]) })
		c.Layer(layer).Weigh(func() *Node { return weightOf(qkv[3*layer+2]) })
		out = append(out, ConvertDType(c.Layer(layer).Attend(qkv[3*layer]), dtypes.Float32))
	}
	c.Advance()
	return append(out, c.Nodes()...)
}

// weightOf is how much errors of keys or values [B, K, t, D] matter in tests: 3·I + w·wᵀ for each
// head, w being -2, 0, 2, -1, 1 over and over.
func weightOf(values *Node) *Node {
	d := values.Shape().Dimensions
	return Add(gx.MulScalar(eyes(values.Graph(), d[1], d[3]), 3), outer(values.Graph(), d[1], d[3]))
}

func eyes(g *Graph, heads, dim int) *Node {
	square := shapes.Make(dtypes.Int32, heads, dim, dim)
	return ConvertDType(Equal(Iota(g, square, 1), Iota(g, square, 2)), dtypes.Float32)
}

func outer(g *Graph, heads, dim int) *Node {
	square := shapes.Make(dtypes.Int32, heads, dim, dim)
	along := func(axis int) *Node {
		return gx.SubScalar(ConvertDType(Rem(gx.MulScalar(Iota(g, square, axis), 2), gx.Fill(g, square, 5)), dtypes.Float32), 2)
	}
	return Mul(along(1), along(2))
}

// take keeps what a step returned: outputs, then the state.
func (s *session) take(results []*tensors.Tensor) {
	layers := s.plan.Shape().Layers
	s.out, s.state = nil, results[layers:]
	for _, x := range results[:layers] {
		a := hostArrayOf(s.t, x)
		out := oracle.Tensor{Shape: a.dims, Data: a.floats}
		if s.in.layout == BSHD {
			out = swapped(out)
		}
		s.out = append(s.out, out)
	}
	s.loadable()
}

// swapped exchanges axes 1 and 2 of four.
func swapped(x oracle.Tensor) oracle.Tensor {
	d := x.Shape
	out := oracle.NewTensor(d[0], d[2], d[1], d[3])
	for i := range d[0] {
		for j := range d[1] {
			for k := range d[2] {
				copy(out.Row(i, k, j), x.Row(i, j, k))
			}
		}
	}
	return out
}

// loadable asks that every state which a test reaches is one that [Load] takes from a file.
func (s *session) loadable() {
	s.t.Helper()
	if err := CheckState(s.plan, s.state); err != nil {
		s.t.Errorf("a saved file of this state would be refused: %v", err)
	}
}

// prompt starts the cache with the first t slots in one call.
func (s *session) prompt(t int) {
	s.t.Helper()
	masks := s.masks
	s.take(s.run("prompt"+masks.name(), func(_, args []*Node) []*Node {
		c := s.plan.Init(args[0])
		return attendAll(c, masks.ask(c, args[1:]))
	}, nil, append([]any{s.in.starts()}, append(masks.tensors(s, t), s.in.tensors(0, t)...)...)...))
	s.slots = t
}

// empty starts the cache with nothing in it.
func (s *session) empty() {
	s.t.Helper()
	s.state = s.run("empty", func(_, args []*Node) []*Node { return s.plan.Init(args[0]).Nodes() }, nil, s.in.starts())
	s.slots, s.out = 0, nil
	s.loadable()
}

// step adds the next t slots in one call.
func (s *session) step(t int) {
	s.t.Helper()
	masks := s.masks
	s.take(s.run("step"+masks.name(), func(state, args []*Node) []*Node {
		c := s.plan.From(state)
		return attendAll(c, masks.ask(c, args))
	}, s.state, append(masks.tensors(s, t), s.in.tensors(s.slots, s.slots+t)...)...))
	s.slots += t
}

// loop adds n slots one by one inside a While; the outputs are those of the last.
func (s *session) loop(n int) {
	s.t.Helper()
	layers := s.plan.Shape().Layers
	s.take(s.run(fmt.Sprint("loop of ", n), func(state, args []*Node) []*Node {
		g := state[0].Graph()
		first := append([]*Node{gx.Scalar(g, dtypes.Int32, 0)}, state...)
		for layer := range layers {
			q := args[3*layer].Shape().Clone()
			q.Dimensions[2], q.DType = 1, dtypes.Float32
			first = append(first, gx.Zeros(g, q))
		}
		out := gx.LoopOver(args, first,
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], n) },
			func(args, st []*Node) []*Node {
				i, zero := st[0], gx.Scalar(st[0].Graph(), dtypes.Int32, 0)
				var qkv []*Node
				for _, x := range args {
					qkv = append(qkv, gx.DynamicSlice(x, []*Node{zero, zero, i, zero}, []int{x.Shape().Dim(0), x.Shape().Dim(1), 1, x.Shape().Dim(3)}))
				}
				results := attendAll(s.plan.From(st[1:1+len(state)]), qkv)
				return append(append([]*Node{gx.AddScalar(i, 1)}, results[layers:]...), results[:layers]...)
			})
		return append(out[1+len(state):], out[1:1+len(state)]...)
	}, s.state, s.in.tensors(s.slots, s.slots+n)...))
	s.slots += n
}

// edit changes the state by a method of Cache.
func (s *session) edit(name string, arg any, f func(c Cache, arg *Node)) {
	s.t.Helper()
	s.state = s.run(name, func(state, args []*Node) []*Node {
		c := s.plan.From(state)
		f(c, args[0])
		return c.Nodes()
	}, s.state, arg)
	s.loadable()
}

func (s *session) crop(n int) {
	s.t.Helper()
	s.edit("crop", int32(n), func(c Cache, n *Node) { c.Crop(n) })
	s.slots -= n
}

func (s *session) reorder(rows ...int32) {
	s.t.Helper()
	s.edit("reorder", rows, func(c Cache, rows *Node) { c.Reorder(rows) })
}

// host reads the state.
func (s *session) host() hostState { return readState(s.t, s.plan, s.state) }

// held returns what each layer holds of each row, [layer][row].
func (s *session) held() [][]map[int]*heldToken {
	s.t.Helper()
	h := s.host()
	var out [][]map[int]*heldToken
	for layer := range s.plan.Shape().Layers {
		out = append(out, nil)
		for row := range s.plan.Shape().Batch {
			out[layer] = append(out[layer], h.tokens(s.t, layer, row))
		}
	}
	return out
}

// expected is attention in float64 of the newest t slots over what held says of older ones and the
// data says of them.
func (s *session) expected(layer, t int, held []map[int]*heldToken) oracle.Tensor {
	s.t.Helper()
	p := s.plan.Shape()
	q := oracle.NewTensor(p.Batch, s.in.heads, t, p.HeadDim)
	k, v := oracle.NewTensor(p.Batch, p.KVHeads, s.slots, p.HeadDim), oracle.NewTensor(p.Batch, p.KVHeads, s.slots, s.in.valueDim)
	for b, data := range s.in.rows {
		for slot := s.in.start[b]; slot < s.slots; slot++ {
			index := slot - s.in.start[b]
			for head := range p.KVHeads {
				tok := held[b][index]
				switch {
				case slot >= s.slots-t:
					copy(k.Row(b, head, slot), wide(data.keys[layer][index][head]))
					copy(v.Row(b, head, slot), wide(data.values[layer][index][head]))
				case tok == nil:
					s.t.Fatalf("layer %d, row %d of %d slots: token %d is lost", layer, b, s.slots, index)
				default:
					copy(k.Row(b, head, slot), tok.keys[head])
					copy(v.Row(b, head, slot), tok.values[head])
				}
			}
			if slot >= s.slots-t {
				for head := range s.in.heads {
					copy(q.Row(b, head, slot-s.slots+t), wide(data.queries[layer][index][head]))
				}
			}
		}
	}
	return s.scores(layer, t).Attention(q, k, v)
}

// scores is what the oracle is to know of the plan's attention in a layer, and of the masks of the
// last t slots.
func (s *session) scores(layer, t int) oracle.Scores {
	p := s.plan.Shape()
	out := oracle.Scores{Start: s.in.start, Window: s.windowOf(layer), Scale: p.Attention.Scale, SoftCap: p.Attention.SoftCap, Slopes: p.Attention.Slopes}
	s.masks.tell(s, t, &out)
	return out
}

func (s *session) windowOf(layer int) int {
	p := s.plan.Shape()
	if len(p.Attention.LayerWindows) > 0 {
		return p.Attention.LayerWindows[layer]
	}
	return p.SlidingWindow
}

// uncached is attention in float64 over the data itself: a model without a cache.
func (s *session) uncached(layer, t int) oracle.Tensor {
	held := make([]map[int]*heldToken, len(s.in.rows))
	for b, data := range s.in.rows {
		held[b] = map[int]*heldToken{}
		for i := range s.slots - s.in.start[b] {
			tok := &heldToken{}
			for head := range s.in.kvHeads {
				tok.keys = append(tok.keys, wide(data.keys[layer][i][head]))
				tok.values = append(tok.values, wide(data.values[layer][i][head]))
			}
			held[b][i] = tok
		}
	}
	return s.expected(layer, t, held)
}

func wide(x []float32) []float64 { return elements(x, func(v float32) float64 { return float64(v) }) }
