package kvq_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/oracle"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// testMasks are masks of a session's steps, made of numbers that a hash gives: arrays for the graph
// and functions for the oracle. A nil one is none.
type testMasks struct {
	visible, bias, tree bool
	// shared: one mask for all rows, and one row of it for all queries of a step
	shared bool
}

func (m *testMasks) name() string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf(", masked %+v", *m)
}

// drawn is a number of 0 to 1 for a row, head, query and key.
func drawn(row, head, query, key int) float64 {
	x := uint32(row*7919+head*104729+query*1299709+key*15485863) * 2654435761
	return float64(x>>8) / (1 << 24)
}

// sees is a mask without any order. A token sees itself.
func (m *testMasks) sees(row, query, key int) bool {
	if m.shared {
		return drawn(0, 0, 0, key) < 0.6
	}
	return query == key || drawn(row, 0, query, key) < 0.6
}

// biasOf has -Inf here and there, and differs by head.
func (m *testMasks) biasOf(head, query, key int) float64 {
	if m.shared {
		query = 0
	}
	x := drawn(3, head, query, key)
	if x < 0.1 && query != key && !m.shared {
		return math.Inf(-1)
	}
	return float64(float32(4 * x))
}

// parent is the token of a draft that token i > 0 follows.
func parent(i int) int { return (i - 1) / 2 }

// branch tells whether token i of a draft sees token j of it.
func branch(i, j int) bool {
	for i > j {
		i = parent(i)
	}
	return i == j
}

func depth(i int) (n int) {
	for ; i > 0; i = parent(i) {
		n++
	}
	return n
}

// tensors are the arrays of a step of t tokens.
func (m *testMasks) tensors(s *session, t int) []any {
	if m == nil {
		return nil
	}
	var out []any
	rows, queries := len(s.in.start), t
	if m.shared {
		rows, queries = 1, 1
	}
	// Rows with padding have fewer tokens than n.
	n := s.slots + t
	if m.visible {
		var flat []bool
		for row := range rows {
			for i := range queries {
				for key := range n {
					flat = append(flat, m.sees(row, s.slots+i-s.in.start[row], key))
				}
			}
		}
		out = append(out, tensors.FromFlatDataAndDimensions(flat, rows, 1, queries, n))
	}
	if m.bias {
		var flat []float32
		for row := range rows {
			for head := range s.in.heads {
				for i := range queries {
					for key := range n {
						flat = append(flat, float32(m.biasOf(head, s.slots+i-s.in.start[row], key)))
					}
				}
			}
		}
		out = append(out, tensors.FromFlatDataAndDimensions(flat, rows, s.in.heads, queries, n))
	}
	if m.tree {
		var flat []bool
		for i := range t {
			for j := range t {
				flat = append(flat, branch(i, j))
			}
		}
		out = append(out, tensors.FromFlatDataAndDimensions(flat, 1, t, t))
	}
	return out
}

// ask hands the arrays to the cache and returns the other nodes.
func (m *testMasks) ask(c Cache, nodes []*Node) []*Node {
	if m == nil {
		return nodes
	}
	var masks Masks
	next := func(wanted bool) (x *Node) {
		if wanted {
			x, nodes = nodes[0], nodes[1:]
		}
		return x
	}
	masks.Visible, masks.Bias, masks.Tree = next(m.visible), next(m.bias), next(m.tree)
	c.Mask(masks)
	return nodes
}

// tell describes the masks of the session's last t slots to the oracle.
func (m *testMasks) tell(s *session, t int, to *oracle.Scores) {
	if m == nil {
		return
	}
	first := s.slots - t // slot of the first new token
	if m.tree {
		to.Place = func(_, slot int) int {
			if slot < first {
				return slot
			}
			return first + depth(slot-first)
		}
		window := to.Window
		to.Sees = func(row, _, query, key int) bool {
			if window > 0 && to.Place(row, query)-to.Place(row, key) >= window {
				return false
			}
			return key < first || branch(query-first, key-first)
		}
	}
	if m.visible {
		to.Sees = func(row, _, query, key int) bool { return m.sees(row, query-s.in.start[row], key-s.in.start[row]) }
	}
	if m.bias {
		to.Bias = func(row, head, query, key int) float64 {
			return m.biasOf(head, query-s.in.start[row], key-s.in.start[row])
		}
	}
}

func onesOf(g *Graph, dtype dtypes.DType, dims ...int) *Node {
	return Ones(g, shapes.Make(dtype, dims...))
}

// What does not fit is refused in one line when the graph is built.
func TestMasksRefused(t *testing.T) {
	shape := Shape{Layers: 1, Batch: 2, KVHeads: 2, HeadDim: 8, Capacity: 16, DType: dtypes.Float32}
	for _, config := range []Config{{}, {Backend: Blocks, NBits: 4, QGroupSize: 8, ResidualLength: 4}} {
		plan := newPlan(t, config, shape)
		for _, c := range []struct {
			want  string
			masks func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks
		}{
			{"kvq.Mask: Visible (Float32)", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Visible: ones(dtypes.Float32, 1, 1, 3, 3)}
			}},
			{"kvq.Mask: Visible (Bool)[3, 1, 3, 3], want bool [2 or 1", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Visible: ones(dtypes.Bool, 3, 1, 3, 3)}
			}},
			{"kvq.Mask: Bias (Int32)", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Bias: ones(dtypes.Int32, 1, 1, 3, 3)}
			}},
			{"want [.., 4 or 1, 3 or 1, ..]", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Bias: ones(dtypes.Float32, 1, 2, 3, 3)}
			}},
			{"want [.., 4 or 1, 3 or 1, ..]", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Visible: ones(dtypes.Bool, 1, 1, 2, 3)}
			}},
			{"want bool [2 or 1, t, t]", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Tree: ones(dtypes.Bool, 1, 2, 3)}
			}},
			{"want [.., 3, 3] for 3 new tokens", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Tree: ones(dtypes.Bool, 1, 2, 2)}
			}},
			{"Visible and Tree, want one of them", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Visible: ones(dtypes.Bool, 1, 1, 3, 3), Tree: ones(dtypes.Bool, 1, 3, 3)}
			}},
			{"want the same number of tokens", func(ones func(dtype dtypes.DType, dims ...int) *Node) Masks {
				return Masks{Visible: ones(dtypes.Bool, 1, 1, 3, 3), Bias: ones(dtypes.Float32, 1, 1, 3, 4)}
			}},
		} {
			g := NewGraph(testbackend.XLA(t), "refused")
			err := exceptions.TryCatch[error](func() {
				cache := plan.Init(Const(g, []int32{0, 1}))
				ones := func(dtype dtypes.DType, dims ...int) *Node { return onesOf(g, dtype, dims...) }
				cache.Mask(c.masks(ones))
				x := onesOf(g, dtypes.Float32, 2, 2, 3, 8)
				cache.Layer(0).Append(x, x)
				cache.Layer(0).Attend(onesOf(g, dtypes.Float32, 2, 4, 3, 8))
			})
			g.Finalize()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		}
	}
}
