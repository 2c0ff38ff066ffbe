package kvq

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

type appendExact func(p *Plan, exact, token [2]*Node, slot, index, counts *Node) [2]*Node

// Tokens go to the ring, but the first of each row to its sink: three rows that begin at slots 0, 1
// and 3, two sinks, a ring of five, nine steps. It is so for rows that grow together, for those
// with lengths of their own, and where rows are written at once, as on a GPU.
func TestAppendExact(t *testing.T) {
	appendsExact(t, testbackend.XLA(t), (*Plan).appendExact)
	appendsExact(t, testbackend.XLA(t), func(p *Plan, exact, token [2]*Node, slot, index, counts *Node) [2]*Node {
		return p.appendExact(exact, token, gx.BroadcastToDims(slot, dims(index)...), index, counts)
	})
	appendsExact(t, testbackend.XLA(t), func(p *Plan, exact, token [2]*Node, slot, index, counts *Node) [2]*Node {
		return scatterRows(exact, token, 0, p.exactSlot(slot, index), counts)
	})
}

func TestAppendExactOnCUDA(t *testing.T) { appendsExact(t, testbackend.CUDA(t), (*Plan).appendExact) }

func appendsExact(t *testing.T, backend compute.Backend, form appendExact) {
	t.Helper()
	const rows, heads, dim, sinks, ring, steps = 3, 2, 4, 2, 5, 9
	starts := []int32{0, 1, 3}
	p := &Plan{sinks: sinks, windowSlots: ring}
	exec := MustNewExec(backend, func(start *Node) []*Node {
		g := start.Graph()
		shape := shapes.Make(dtypes.Float32, rows, heads, sinks+ring, dim)
		state := []*Node{gx.Scalar(g, dtypes.Int32, 0), gx.Zeros(g, shape), gx.Zeros(g, shape)}
		out := gx.LoopOver([]*Node{start}, state, func(st []*Node) *Node { return gx.LessThanScalar(st[0], steps) },
			func(captured, st []*Node) []*Node {
				step := st[0]
				key := Add(Iota(g, shapes.Make(dtypes.Float32, rows, heads, 1, dim), 0), gx.BroadcastToDims(ConvertDType(gx.MulScalar(gx.AddScalar(step, 1), 10), dtypes.Float32), rows, heads, 1, dim))
				exact := form(p, [2]*Node{st[1], st[2]}, [2]*Node{key, Neg(key)}, p.ringSlot(step), Sub(step, captured[0]), nil)
				return []*Node{gx.AddScalar(step, 1), exact[0], exact[1]}
			})
		return out[1:]
	})
	defer exec.Finalize()
	out, err := exec.Exec(starts)
	if err != nil {
		t.Fatal(err)
	}
	for side, sign := range []float32{1, -1} {
		got, err := tensors.CopyFlatData[float32](out[side])
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range got {
			row, slot := i/(heads*(sinks+ring)*dim), i/dim%(sinks+ring)
			step := slot + int(starts[row]) // of a sink
			if slot >= sinks {
				step = slot - sinks // of the ring: the newest that comes there
				for step+ring < steps {
					step += ring
				}
				if index := step - int(starts[row]); 0 <= index && index < sinks {
					continue // it lies in its sink
				}
			}
			if want := sign * float32(10*(step+1)+row); x != want {
				t.Errorf("side %d, row %d, slot %d: %v, want %v", side, row, slot, x, want)
			}
		}
	}
}
