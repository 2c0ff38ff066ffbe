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

// Tokens go to the ring, and the first of each row to its sink as well: three rows that begin at
// slots 0, 1 and 3, two sinks, a ring of five, nine steps.
func TestAppendExact(t *testing.T) { appendsExact(t, testbackend.XLA(t)) }

// The same on a GPU, where another graph writes sinks.
func TestAppendExactOnCUDA(t *testing.T) { appendsExact(t, testbackend.CUDA(t)) }

func appendsExact(t *testing.T, backend compute.Backend) {
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
				exact := p.appendExact([2]*Node{st[1], st[2]}, [2]*Node{key, Neg(key)}, p.ringSlot(step), Sub(step, captured[0]), nil)
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
			}
			if want := sign * float32(10*(step+1)+row); x != want {
				t.Errorf("side %d, row %d, slot %d: %v, want %v", side, row, slot, x, want)
			}
		}
	}
}
