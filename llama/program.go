package llama

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// program is one graph, compiled for one set of shapes in the background.
type program struct {
	*generate.Program[*computation]
}

// programs compiles each graph once. Safe for concurrent use.
type programs struct {
	model *Model
	all   generate.Programs[*computation]
}

// build is a graph: from the model's weights and the other inputs to the outputs.
type build func(w modelNodes, inputs []*graph.Node) []*graph.Node

// start begins to compile a graph, unless one with this key was begun already. key is comparable
// and tells apart all graphs; inputs are the layouts of what comes after the weights, outputs the
// axes along which the first outputs are cut.
func (ps *programs) start(key any, inputs []layout, outputs []int, graphOf build) program {
	return ps.startOf(key, func() []layout { return append(ps.model.weightLayouts(), inputs...) }, outputs, func(nodes []*graph.Node) []*graph.Node {
		w, rest := ps.model.nodes(nodes)
		return graphOf(w, rest)
	})
}

// startPlain is start for a graph that gets inputs alone.
func (ps *programs) startPlain(key any, inputs []layout, outputs []int, graphOf func(inputs []*graph.Node) []*graph.Node) program {
	return ps.startOf(key, func() []layout { return inputs }, outputs, graphOf)
}

// startOf is startPlain for inputs that are listed if it is the first with this key: those of all
// weights take a quarter of a millisecond.
func (ps *programs) startOf(key any, inputs func() []layout, outputs []int, graphOf func(inputs []*graph.Node) []*graph.Node) program {
	return program{ps.all.Start(key, func() (*computation, error) {
		c, err := ps.model.on.compile(fmt.Sprintf("llama.%T", key), inputs(), outputs, graphOf)
		if err != nil {
			return nil, fmt.Errorf("compiling %v: %w", key, err)
		}
		return c, nil
	})}
}

// Needs is what the compiled program takes of each device's memory, by XLA's figures.
func (p program) Needs() (gx.Compiled, error) { return p.Of.needs, p.Of.needsErr }

// run calls a compiled program with the weights and inputs (sharded tensors, or values of the
// host). Its outputs are the caller's, to be freed with free. When ctx ends it returns early with
// the context's error, and the call finishes unheard.
func (ps *programs) run(ctx context.Context, p program, inputs ...any) ([]sharded, error) {
	args := make([]any, 0, len(ps.model.weights)+len(inputs))
	for _, s := range ps.model.weights {
		args = append(args, s)
	}
	return ps.runPlain(ctx, p, append(args, inputs...)...)
}

// runPlain is run for a graph that gets inputs alone.
func (ps *programs) runPlain(ctx context.Context, p program, args ...any) ([]sharded, error) {
	return generate.Call(ctx, &ps.all, func() ([]sharded, error) { return p.Of.call(args...) }, func(out []sharded) { free(out...) })
}

// finalize waits for what is under way and drops the compiled programs.
func (ps *programs) finalize() { ps.all.Finalize() }
