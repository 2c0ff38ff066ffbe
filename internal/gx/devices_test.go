package gx

import (
	"fmt"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// onDevices prepares a graph that n devices run, each on numbers of its own.
func onDevices(t *testing.T, n int, fn func(in []*graph.Node) []*graph.Node) *graph.Exec {
	t.Helper()
	backend := testbackend.XLA(t)
	if has := backend.NumDevices(); has < n {
		t.Skipf("%d devices wanted, XLA shows %d", n, has)
	}
	mesh, err := distributed.NewDeviceMesh([]int{n}, []string{"part"})
	if err != nil {
		t.Fatal(err)
	}
	exec, err := graph.NewExec(backend, fn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	return exec.SPMD(mesh)
}

// All that a model on several devices leans on, in one graph: sums over devices in a loop and in a
// function, behind a custom call; what stays on its device from call to call, weights as they are
// and a state that is written in place.
func TestSumOverDevices(t *testing.T) {
	const width = 1 << 12
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			exec := onDevices(t, n, func(in []*graph.Node) []*graph.Node {
				weight, state := in[0], in[1]
				if Sharing(weight.Graph()) != 1 {
					t.Errorf("shared among %d devices, want 1", Sharing(weight.Graph()))
				}
				Reuse(in[1:])
				var functions Functions
				out := Loop([]*graph.Node{Scalar(weight.Graph(), dtypes.Int32, 0), state, weight},
					func(st []*graph.Node) *graph.Node { return LessThanScalar(st[0], 3) },
					func(st []*graph.Node) []*graph.Node {
						own := CustomCall("LayoutConstraint", "", []*graph.Node{graph.Add(st[1], st[2])}, st[1].Shape())[0]
						sum := functions.Call("sum", []*graph.Node{own}, func(in []*graph.Node) []*graph.Node {
							return []*graph.Node{SumOverDevices(in[0])}
						})[0]
						return []*graph.Node{AddScalar(st[0], 1), graph.Sub(sum, st[1]), st[2]}
					})
				return []*graph.Node{out[1]}
			})
			shape := shapes.Make(dtypes.Float32, width)
			g, err := exec.Compile(slices.Repeat([]shapes.Shape{shape}, 2*n)...)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := CompiledMemory(g); err != nil || c.Reused != 4*width {
				t.Errorf("%+v, %v, want %d bytes reused on each device", c, err, 4*width)
			}
			want := make([]float32, n) // the state on each device
			var weights, states []*tensors.Tensor
			for i := range n {
				weights, states = append(weights, filled(t, i, float32(i+1))), append(states, filled(t, i, 0))
			}
			for range 2 {
				var args []any
				for i := range n {
					state, err := graph.DonateTensorBuffer(states[i], testbackend.XLA(t), compute.DeviceNum(i))
					if err != nil {
						t.Fatal(err)
					}
					args = append(args, weights[i], state)
				}
				out, err := exec.Call(args...)
				if err != nil {
					t.Fatal(err)
				}
				states = out
				for range 3 {
					var sum float32
					for i := range n {
						sum += want[i] + float32(i+1)
					}
					for i := range n {
						want[i] = sum - want[i]
					}
				}
				for i, x := range states {
					if device, err := x.Device(); err != nil || int(device) != i {
						t.Errorf("state %d is on device %d (%v)", i, device, err)
					}
					if got := tensors.MustCopyFlatData[float32](x); got[0] != want[i] || got[width-1] != want[i] {
						t.Errorf("device %d has %v … %v, want %v", i, got[0], got[width-1], want[i])
					}
				}
			}
		})
	}
}

// filled is a tensor of equal numbers on one device.
func filled(t *testing.T, device int, value float32) *tensors.Tensor {
	t.Helper()
	all := slices.Repeat([]float32{value}, 1<<12)
	x, err := tensors.FromRaw(testbackend.XLA(t), compute.DeviceNum(device), shapes.Make(dtypes.Float32, len(all)), dtypes.UnsafeByteSliceFromAny(all))
	if err != nil {
		t.Fatal(err)
	}
	return x
}
