package llama

import (
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// devices are what a model is sharded over. With several, it is tensor-parallel: device i has the
// i-th run of key/value heads with their query heads, their part of every cache, and the i-th part
// of the feed-forward width; norms, embeddings and logits it has whole. A layer is cut twice
// (Shoeybi et al. 2019, "Megatron-LM", section 3): the projections to heads and to the feed-forward
// width by their outputs, those back by their inputs, so that a sum over the devices ends each half
// of a layer, and nothing else is exchanged.
//
// Every device runs the same graph, that of a smaller model (Config.Share), on its own part of
// weights and cache. So whatever one device can run, kernels too, several can.
type devices struct {
	backend compute.Backend
	n       int
	mesh    *distributed.DeviceMesh // nil where n is 1: nothing is said of devices then
}

// meshAxis is the one axis of the mesh.
const meshAxis = "heads"

// collective lets one program that runs on several devices run at a time: two whose sums over the
// devices were begun in a different order on each would wait for one another for ever.
var collective sync.Mutex

// newDevices checks that the backend has n devices.
func newDevices(backend compute.Backend, n int) (*devices, error) {
	d := &devices{backend: backend, n: n}
	if has := backend.NumDevices(); n > has {
		return nil, usererr.New("want %d devices, %s has %d", n, backend.Name(), has)
	}
	if n == 1 {
		return d, nil
	}
	var err error
	d.mesh, err = distributed.NewDeviceMesh([]int{n}, []string{meshAxis})
	return d, err
}

// whole is the axis of a tensor that every device has all of.
const whole = -1

// layout is a tensor's shape on all devices together, and the axis along which it is cut into equal
// pieces, one a device; or whole.
type layout struct {
	shape shapes.Shape
	axis  int
}

// wholes are layouts of tensors that every device has all of.
func wholes(list ...shapes.Shape) []layout {
	out := make([]layout, len(list))
	for i, s := range list {
		out[i] = layout{s, whole}
	}
	return out
}

// part is the shape of what one device has, and of what graphs see.
func (d *devices) part(l layout) shapes.Shape {
	if d.n == 1 || l.axis == whole {
		return l.shape
	}
	s := l.shape.Clone()
	s.Dimensions[l.axis] /= d.n
	return s
}

// across is the layout of a tensor that graphs see with a shape, cut along an axis or whole.
func (d *devices) across(s shapes.Shape, axis int) layout {
	if axis != whole {
		s = s.Clone()
		s.Dimensions[axis] *= d.n
	}
	return layout{s, axis}
}

// layouts say how a cache lies on the devices: every one has the arrays of its own heads. plan is
// what its graphs are built from.
func (d *devices) layouts(plan *kvq.Plan) []layout {
	var out []layout
	axes := plan.HeadAxes()
	for i, s := range plan.Shapes() {
		out = append(out, d.across(s, axes[i]))
	}
	return out
}

// computation is a compiled graph that runs on all devices at once.
type computation struct {
	on    *devices
	exec  *graph.Exec
	graph *graph.Graph
	in    []shapes.Shape // of inputs, as each device has them
	out   []int          // the axes along which the first outputs are cut; the others are whole

	needs    gx.Compiled // each device's memory, by XLA's figures
	needsErr error       // why there are none
}

// compile builds and compiles a graph. in are the layouts of all inputs; out are the axes along
// which the first outputs are cut.
func (d *devices) compile(name string, in []layout, out []int, fn func([]*graph.Node) []*graph.Node) (*computation, error) {
	exec, err := graph.NewExec(d.backend, fn)
	if err != nil {
		return nil, err
	}
	exec.WithName(name)
	list := make([]shapes.Shape, 0, len(in)*d.n)
	for range d.n {
		for _, l := range in {
			list = append(list, d.part(l))
		}
	}
	if d.n > 1 {
		exec.SPMD(d.mesh)
	}
	g, err := exec.Compile(list...)
	if err != nil {
		exec.Finalize()
		return nil, err
	}
	needs, needsErr := gx.CompiledMemory(g)
	return &computation{d, exec, g, list[:len(in)], out, needs, needsErr}, nil
}

// Free drops the compiled graph.
func (c *computation) Free() { c.exec.Finalize() }

// axis is that along which an output is cut, or whole.
func (c *computation) axis(output int) int {
	if output < len(c.out) {
		return c.out[output]
	}
	return whole
}
