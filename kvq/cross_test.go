package kvq_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// An encoder's output goes into a cache once; queries of a decoder attend to all of it in the same
// step and in later ones, one token or several, with and without a mask. Every cache gives what the
// oracle says of what it holds.
func TestCrossAttention(t *testing.T) {
	for _, c := range suiteCases(t) {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case c.name != "full precision":
				testlane.OnlyAll(t, "full precision stands for all; TestPureGo has codes")
			}
			t.Parallel()
			c.crosses(t)
		})
	}
}

func (c suiteCase) crosses(t *testing.T) {
	t.Helper()
	const encoded = 110
	shape := c.shape(2, encoded)
	shape.SlidingWindow, shape.Attention = 0, Attention{Cross: true, SoftCap: 3}
	in := makeInputs(5, shape, suiteHeads, encoded, 0, 9)
	s := newSession(t, newPlan(t, c.fitted(), shape), in)
	r := &recording{suiteCase: c, session: s}
	r.slots = encoded

	// queries of t tokens, of the first tokens of the rows
	queries := func(layer, t int) oracle.Tensor {
		q := oracle.NewTensor(2, suiteHeads, t, shape.HeadDim)
		for b, row := range in.rows {
			for head := range suiteHeads {
				for i := range t {
					copy(q.Row(b, head, i), wide(row.queries[layer][i][head]))
				}
			}
		}
		return q
	}
	arrays := func(t int) (out []any) {
		for layer := range shape.Layers {
			q := queries(layer, t)
			flat := converted(q.Data, func(x float64) float32 { return float32(x) })
			out = append(out, tensorOf(shape.DType, flat, q.Shape...))
		}
		return out
	}
	// of the encoder's tokens, each of t queries sees some
	mask := func(t int) (*tensors.Tensor, func(row, head, query, key int) bool) {
		sees := func(query, index int) bool { return (query+index)%3 != 0 }
		var flat []bool
		for i := range t {
			for index := range encoded {
				flat = append(flat, sees(i, index))
			}
		}
		return tensors.FromFlatDataAndDimensions(flat, 1, 1, t, encoded), func(row, _, query, key int) bool {
			return sees(query-(encoded-t), key-in.start[row])
		}
	}
	attend := func(cache Cache, q []*Node) (out []*Node) {
		for layer, x := range q {
			cache.Layer(layer).Weigh(func() *Node {
				return Add(eyes(x.Graph(), shape.KVHeads, shape.HeadDim), outer(x.Graph(), shape.KVHeads, shape.HeadDim))
			})
			out = append(out, ConvertDType(cache.Layer(layer).Attend(x), dtypes.Float32))
		}
		cache.Advance()
		return append(out, cache.Nodes()...)
	}
	require := func(what string, t int, held func(layer int) (k, v oracle.Tensor), sees func(row, head, query, key int) bool) {
		for layer, got := range r.out {
			k, v := held(layer)
			want := oracle.Scores{Start: in.start, SoftCap: 3, Cross: true, Sees: sees}.Attention(queries(layer, t), k, v)
			if worst, at := worstAttention(&session{in: in, slots: encoded}, t, got, want); worst > c.tolerance() {
				r.t.Errorf("%s of %d, layer %d: attention is off by %.2g at %s, wanted at most %.2g", what, t, layer, worst, at, c.tolerance())
			}
		}
	}

	// the prompt of another decoder: 3 tokens
	r.take(s.run("encoded", func(_, args []*Node) []*Node {
		cache := s.plan.Init(args[0])
		q, kv := args[1:1+shape.Layers], args[1+shape.Layers:]
		for layer := range shape.Layers {
			cache.Layer(layer).Append(kv[3*layer+1], kv[3*layer+2])
		}
		return attend(cache, q)
	}, nil, append([]any{in.starts()}, append(arrays(3), in.tensors(0, encoded)...)...)...))
	require("in the step that appends", 3, func(layer int) (k, v oracle.Tensor) {
		return in.keysAndValues(layer, encoded)
	}, nil)

	held := r.held()
	of := func(layer int) (k, v oracle.Tensor) { return heldKeysAndValues(t, s, held[layer], encoded) }
	for _, n := range []int{1, 4, 1} {
		r.take(s.run("attend", func(state, args []*Node) []*Node { return attend(s.plan.From(state), args) }, r.state, arrays(n)...))
		require("later", n, of, nil)
	}
	for _, n := range []int{1, 4} {
		array, sees := mask(n)
		r.take(s.run("attend, masked", func(state, args []*Node) []*Node {
			cache := s.plan.From(state)
			cache.Mask(Masks{Visible: args[0]})
			return attend(cache, args[1:])
		}, r.state, append([]any{array}, arrays(n)...)...))
		require("masked", n, of, sees)
	}
	// Attending changed nothing.
	for layer, rows := range r.held() {
		for row := range rows {
			requireSameTokens(t, "after attending", held[layer][row], rows[row])
		}
	}
}

// keysAndValues are those of n slots as the data says, [B, K, n, D].
func (in *inputs) keysAndValues(layer, n int) (k, v oracle.Tensor) {
	k, v = oracle.NewTensor(len(in.rows), in.kvHeads, n, in.dim), oracle.NewTensor(len(in.rows), in.kvHeads, n, in.valueDim)
	for b, row := range in.rows {
		for slot := in.start[b]; slot < n; slot++ {
			for head := range in.kvHeads {
				copy(k.Row(b, head, slot), wide(row.keys[layer][slot-in.start[b]][head]))
				copy(v.Row(b, head, slot), wide(row.values[layer][slot-in.start[b]][head]))
			}
		}
	}
	return k, v
}

// heldKeysAndValues are those that a layer holds.
func heldKeysAndValues(t *testing.T, s *session, held []map[int]*heldToken, n int) (k, v oracle.Tensor) {
	t.Helper()
	k, v = s.in.keysAndValues(0, n)
	for b := range held {
		for slot := s.in.start[b]; slot < n; slot++ {
			tok := held[b][slot-s.in.start[b]]
			if tok == nil {
				t.Fatalf("row %d: token %d is lost", b, slot-s.in.start[b])
			}
			for head := range tok.keys {
				copy(k.Row(b, head, slot), tok.keys[head])
				copy(v.Row(b, head, slot), tok.values[head])
			}
		}
	}
	return k, v
}

// A cache for cross-attention takes its tokens once, and a cache for self-attention does not attend
// to what was not appended.
func TestCrossRefused(t *testing.T) {
	shape := Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 8, Capacity: 40, DType: dtypes.Float32}
	shape.Attention.Cross = true
	for _, config := range []Config{{}, {Backend: Blocks, NBits: 4, QGroupSize: 8, ResidualLength: 4}} {
		plan := newPlan(t, config, shape)
		for _, c := range []struct {
			want string
			do   func(cache Cache, x *Node)
		}{
			{"kvq.Append: a cross-attention cache takes its tokens in the step of Plan.Init", func(cache Cache, x *Node) {
				cache.Layer(0).Append(x, x)
				cache.Advance()
				cache.Layer(0).Append(x, x)
			}},
			{"nothing was appended", func(cache Cache, x *Node) { cache.Layer(0).Attend(x) }},
			{"kvq.Mask: a Tree in cross-attention", func(cache Cache, x *Node) { cache.Mask(Masks{Tree: onesOf(x.Graph(), dtypes.Bool, 1, 1, 1)}) }},
		} {
			g := NewGraph(testbackend.XLA(t), "refused")
			err := exceptions.TryCatch[error](func() { c.do(plan.Init(Const(g, []int32{0})), onesOf(g, dtypes.Float32, 1, 1, 3, 8)) })
			g.Finalize()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		}
	}
}

// By hand: three tokens, of which rows have three, one and none.
func TestPaddingToLeftByHand(t *testing.T) {
	exec := MustNewExec(testbackend.XLA(t), func(x, lengths *Node) []*Node {
		padded, start := PaddingToLeft(x, lengths)
		return []*Node{padded, start}
	})
	defer exec.Finalize()
	out := exec.MustCall([][][]float32{{{1}, {2}, {3}}, {{4}, {0}, {0}}, {{0}, {0}, {0}}}, []int32{3, 1, 0})
	if got := tensors.MustCopyFlatData[float32](out[0]); !slices.Equal(got, []float32{1, 2, 3, 0, 0, 4, 0, 0, 0}) {
		t.Errorf("%v", got)
	}
	if got := tensors.MustCopyFlatData[int32](out[1]); !slices.Equal(got, []int32{0, 2, 3}) {
		t.Errorf("start %v", got)
	}
}
