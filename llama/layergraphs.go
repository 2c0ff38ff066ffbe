package llama

import (
	"context"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// layerGraphs are graphs of one layer each, or of what stands outside the layers, from some of the
// model's weights. Equal layers share one.
type layerGraphs struct {
	graphs *programs
	top    share   // the weights outside of the layers
	shares []share // of each layer
}

func newLayerGraphs(graphs *programs) layerGraphs {
	top, shares := graphs.model.shares()
	return layerGraphs{graphs, top, shares}
}

// startOn begins to compile a graph from some of the weights and further inputs. key, in and
// outputs are as for programs.start.
func (l layerGraphs) startOn(of share, key any, in []layout, outputs []int, graphOf func(w weightNodes, in []*Node) []*Node) program {
	return l.graphs.startPlain(key, slices.Concat(of.layouts(), in), outputs, func(nodes []*Node) []*Node {
		return graphOf(of.nodes(nodes))
	})
}

// run calls a graph on some of the weights, as programs.runPlain does, once it is compiled.
func (l layerGraphs) run(ctx context.Context, p program, of share, inputs ...any) ([]sharded, error) {
	if err := p.Wait(ctx); err != nil {
		return nil, err
	}
	return l.graphs.runPlain(ctx, p, of.arguments(inputs...)...)
}

// startEmbed begins to compile the graph of embeddings: ids [B, t] to x [B, t, hidden].
func (l layerGraphs) startEmbed(key any, batch, tokens int) program {
	in := wholes(shapes.Make(dtypes.Int32, batch, tokens))
	return l.startOn(l.top, key, in, nil, func(w weightNodes, in []*Node) []*Node {
		return []*Node{modelNodes{top: w}.embedded(in[0])}
	})
}
