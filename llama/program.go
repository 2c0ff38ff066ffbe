package llama

import (
	"context"
	"fmt"
	"sync"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// program is one graph, compiled for one set of shapes in the background.
type program struct {
	*computation
	done chan struct{} // closed when computation or err is there
	err  error
}

// programs compiles each graph once. Safe for concurrent use.
type programs struct {
	model *Model
	mu    sync.Mutex
	known map[any]*program
	busy  sync.WaitGroup // compilations and calls that their caller no longer waits for
}

// build is a graph: from the model's weights and the other inputs to the outputs.
type build func(w modelNodes, inputs []*graph.Node) []*graph.Node

// start begins to compile a graph, unless one with this key was begun already. key is comparable
// and tells apart all graphs; inputs are the layouts of what comes after the weights, outputs the
// axes along which the first outputs are cut.
func (ps *programs) start(key any, inputs []layout, outputs []int, graphOf build) *program {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.known[key]; p != nil {
		return p
	}
	p := &program{done: make(chan struct{})}
	ps.known[key] = p
	all := append(ps.model.weightLayouts(), inputs...)
	ps.busy.Go(func() {
		defer close(p.done)
		p.computation, p.err = ps.model.on.compile(fmt.Sprintf("llama.%T", key), all, outputs, func(nodes []*graph.Node) []*graph.Node {
			w, rest := ps.model.nodes(nodes)
			return graphOf(w, rest)
		})
		if p.err != nil {
			p.err = fmt.Errorf("compiling %+v: %w", key, p.err)
			ps.mu.Lock()
			delete(ps.known, key) // the next caller tries again
			ps.mu.Unlock()
		}
	})
	return p
}

// Wait returns when the program is compiled, or early with the context's error; then it goes on
// compiling.
func (p *program) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Needs is what the compiled program takes of each device's memory, by XLA's figures.
func (p *program) Needs() (gx.Compiled, error) { return p.needs, p.needsErr }

// run calls a compiled program with the weights and inputs (sharded tensors, or values of the
// host). Its outputs are the caller's, to be freed with free. When ctx ends it returns early with
// the context's error, and the call finishes unheard.
func (ps *programs) run(ctx context.Context, p *program, inputs ...any) ([]sharded, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	args := make([]any, 0, len(ps.model.weights)+len(inputs))
	for _, s := range ps.model.weights {
		args = append(args, s)
	}
	args = append(args, inputs...)
	type result struct {
		out []sharded
		err error
	}
	heard := make(chan result, 1)
	ps.busy.Go(func() {
		var r result
		r.out, r.err = p.call(args...)
		heard <- r
	})
	select {
	case r := <-heard:
		return r.out, r.err
	case <-ctx.Done():
		ps.busy.Go(func() { free((<-heard).out...) })
		return nil, ctx.Err()
	}
}

// finalize waits for what is under way and drops the compiled programs.
func (ps *programs) finalize() {
	ps.busy.Wait()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.known {
		if p.computation != nil {
			p.exec.Finalize()
		}
	}
	clear(ps.known)
}
