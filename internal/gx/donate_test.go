package gx

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// step adds weight to a state of n numbers in a loop, as a decode call does: parameters weight [n],
// state [n].
func step(t *testing.T, reuse bool) (*graph.Exec, *graph.Graph) {
	t.Helper()
	const n = 1 << 16
	exec, err := graph.NewExec(testbackend.XLA(t), func(in []*graph.Node) []*graph.Node {
		if reuse {
			Reuse(in[1:])
		}
		out := Loop([]*graph.Node{Scalar(in[0].Graph(), dtypes.Int32, 0), in[1], in[0]},
			func(st []*graph.Node) *graph.Node {
				return graph.LessThan(st[0], Scalar(st[0].Graph(), dtypes.Int32, 3))
			},
			func(st []*graph.Node) []*graph.Node {
				return []*graph.Node{AddScalar(st[0], 1), graph.Add(st[1], st[2]), st[2]}
			})
		return []*graph.Node{out[1]}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	shape := shapes.Make(dtypes.Float32, n)
	g, err := exec.Compile(shape, shape)
	if err != nil {
		t.Fatal(err)
	}
	return exec, g
}

// A donated state is held once: XLA writes the new one in its place.
func TestReuse(t *testing.T) {
	const bytes = 4 << 16
	_, plain := step(t, false)
	if c, err := CompiledMemory(plain); err != nil || c.Reused != 0 {
		t.Errorf("without Reuse: %+v, %v, want nothing reused (if GoMLX does that by itself now, Reuse can go)", c, err)
	}
	exec, g := step(t, true)
	if c, err := CompiledMemory(g); err != nil || c.Reused != bytes {
		t.Errorf("with Reuse: %+v, %v, want %d bytes reused", c, err, bytes)
	}
	weight, state := ones(t), ones(t)
	for call := range 3 {
		donated, err := graph.DonateTensorBuffer(state, testbackend.XLA(t), 0)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Call(weight, donated)
		if err != nil {
			t.Fatal(err)
		}
		state = out[0]
		values, err := tensors.CopyFlatData[float32](state)
		if err != nil {
			t.Fatal(err)
		}
		if want := float32(1 + 3*(call+1)); values[0] != want || values[len(values)-1] != want {
			t.Fatalf("call %d: %v … %v, want %v", call, values[0], values[len(values)-1], want)
		}
	}
	// What is not donated stays as it was.
	before := ones(t)
	if _, err := exec.Call(weight, before); err != nil {
		t.Fatal(err)
	}
	if values, err := tensors.CopyFlatData[float32](before); err != nil || values[0] != 1 {
		t.Errorf("a state that was not donated holds %v after the call (%v), want 1", values[0], err)
	}
}

// ones makes a state on the device, as the output of a graph: memory that XLA allocated.
func ones(t *testing.T) *tensors.Tensor {
	t.Helper()
	return graph.MustExecOnce(testbackend.XLA(t), func(g *graph.Graph) *graph.Node { return Ones(g, shapes.Make(dtypes.Float32, 1<<16)) })
}

func TestCompiledMemory(t *testing.T) {
	_, g := step(t, false)
	const bytes = 4 << 16
	c, err := CompiledMemory(g)
	if err != nil {
		t.Fatal(err)
	}
	if c.Inputs != 2*bytes || c.Outputs < bytes || c.Outputs > bytes+64 {
		t.Errorf("%+v, want inputs of %d bytes and an output of %d", c, 2*bytes, bytes)
	}
}
