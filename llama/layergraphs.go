package llama

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// layerTensors are the weights of one layer, or those outside all layers.
type layerTensors struct {
	list    []modelfile.Tensor
	layouts []layout
	weights []sharded
}

// tensorsOf are those of a layer, of -1 those outside the layers.
func (m *Model) tensorsOf(layer int) (t layerTensors) {
	at := 0
	for _, tensor := range onDevices(m.config) {
		n := len(arrays(tensor, m.dtype, m.on.n, m.packed))
		if tensor.Role.OfLayer() && tensor.Layer == layer || !tensor.Role.OfLayer() && layer < 0 {
			t.list = append(t.list, tensor)
			t.layouts = append(t.layouts, arrays(tensor, m.dtype, m.on.n, m.packed)...)
			t.weights = append(t.weights, m.weights[at:at+n]...)
		}
		at += n
	}
	return t
}

// layerGraphs run a layer, or what stands outside the layers, each as a graph of its own, which
// equal layers share.
type layerGraphs struct {
	model  *Model
	graphs map[any]*computation // by what tells them apart
}

func newLayerGraphs(m *Model) layerGraphs { return layerGraphs{m, map[any]*computation{}} }

func (r layerGraphs) free() {
	for _, g := range r.graphs {
		g.Free()
	}
}

// call runs a graph on some of the weights and on inputs; it is compiled once. key is comparable,
// and tells apart all graphs of r.
func (r layerGraphs) call(key any, t layerTensors, in []layout, graphOf func(w weightNodes, in []*Node) []*Node, inputs ...any) ([]sharded, error) {
	g := r.graphs[key]
	if g == nil {
		var err error
		g, err = r.model.on.compile("llama.layer", append(append([]layout{}, t.layouts...), in...), nil, func(nodes []*Node) []*Node {
			next := func() *Node {
				n := nodes[0]
				nodes = nodes[1:]
				return n
			}
			var w weightNodes
			for _, tensor := range t.list {
				w.take(tensor, r.model.packed, next)
			}
			return graphOf(w, nodes)
		})
		if err != nil {
			return nil, fmt.Errorf("compiling a layer: %w", err)
		}
		r.graphs[key] = g
	}
	args := make([]any, 0, len(t.weights)+len(inputs))
	for _, w := range t.weights {
		args = append(args, w)
	}
	return g.call(append(args, inputs...)...)
}
