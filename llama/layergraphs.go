package llama

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// layerGraphs run a layer, or what stands outside the layers, each as a graph of its own, which
// equal layers share.
type layerGraphs struct {
	model  *Model
	top    share                // the weights outside of the layers
	shares []share              // of each layer
	graphs map[any]*computation // by what tells them apart
}

func newLayerGraphs(m *Model) layerGraphs {
	top, shares := m.shares()
	return layerGraphs{m, top, shares, map[any]*computation{}}
}

func (r layerGraphs) free() {
	for _, g := range r.graphs {
		g.Free()
	}
}

// call runs a graph on some of the weights and on inputs; it is compiled once. key is comparable,
// and tells apart all graphs of r. in and outputs are as for devices.compile.
func (r layerGraphs) call(key any, of share, in []layout, outputs []int, graphOf func(w weightNodes, in []*Node) []*Node, inputs ...any) ([]sharded, error) {
	g := r.graphs[key]
	if g == nil {
		var err error
		g, err = r.model.on.compile("llama.layer", slices.Concat(of.layouts(), in), outputs, func(nodes []*Node) []*Node {
			return graphOf(of.nodes(nodes))
		})
		if err != nil {
			return nil, fmt.Errorf("compiling a layer: %w", err)
		}
		r.graphs[key] = g
	}
	return g.call(of.arguments(inputs...)...)
}

// embeddings are those of tokens ids [B, t]: [B, t, hidden].
func (r layerGraphs) embeddings(batch, tokens int, ids any) (sharded, error) {
	type key struct{ batch, tokens int }
	in := wholes(shapes.Make(dtypes.Int32, batch, tokens))
	out, err := r.call(key{batch, tokens}, r.top, in, nil, func(w weightNodes, in []*Node) []*Node {
		return []*Node{modelNodes{top: w}.embedded(in[0])}
	}, ids)
	if err != nil {
		return sharded{}, err
	}
	return out[0], nil
}
