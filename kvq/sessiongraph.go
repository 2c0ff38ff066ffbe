package kvq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// runner compiles and runs the graphs of a session and its forks, each once.
type runner struct {
	backend  compute.Backend
	store    *model.Store
	step     Step
	programs generate.Programs[*sessionGraph]
	sessions atomic.Int32 // that are not finalized
}

func newRunner(backend compute.Backend, store *model.Store, step Step) (*runner, error) {
	if backend == nil || step == nil {
		return nil, usererr.New("kvq: want a backend and a step of a model, got nil")
	}
	if err := Supported(backend); err != nil {
		return nil, err
	}
	if store == nil {
		store = model.NewStore()
	}
	r := &runner{backend: backend, store: store, step: step}
	r.sessions.Store(1)
	return r, nil
}

// program is a graph that is being compiled in the background, or was.
type program = *generate.Program[*sessionGraph]

// sessionGraph is a compiled graph with the store's variables that it reads and writes.
type sessionGraph struct {
	exec      *graph.Exec
	variables []*model.Variable
	handles   []graph.ParameterHandle // of variables
	changed   []*model.Variable       // their new values are the last outputs

	needs    gx.Compiled // of the device's memory, by XLA's figures
	needsErr error       // why there are none
}

// Free drops the compiled graph.
func (s *sessionGraph) Free() { s.exec.Finalize() }

// building lets one graph be built at a time: a store's variables are made while graphs are built,
// and a store is not safe for that. XLA's part of compiling goes on side by side.
var building sync.Mutex

// values lets one call at a time read or change the values of variables.
var values sync.Mutex

// start begins to compile a graph from inputs, the first reuse of which are a cache that the first
// outputs take the place of.
func (r *runner) start(key any, inputs []shapes.Shape, reuse int, build func(scope *model.Scope, in []*graph.Node) []*graph.Node) program {
	return r.programs.Start(key, func() (*sessionGraph, error) {
		s := &sessionGraph{}
		var failure error
		exec, err := graph.NewExec(r.backend, func(in []*graph.Node) []*graph.Node {
			building.Lock()
			defer building.Unlock()
			g := in[0].Graph()
			model.SetStore(g, r.store)
			gx.Reuse(in[:reuse])
			var out []*graph.Node
			// What the model or the cache says is told without what GoMLX puts in front of it.
			// Other panics than errors would end the program, since nobody waits in this goroutine.
			switch caught := exceptions.Try(func() { out = build(r.store.RootScope(), in) }).(type) {
			case nil:
			case error:
				failure = caught
				panic(failure)
			default:
				failure = fmt.Errorf("the model's step panicked: %v", caught)
				panic(failure)
			}
			for v := range r.store.IterVariables() {
				if !v.InUseByGraph(g) {
					continue
				}
				parameter := g.GetParameterByName(v.Path())
				if parameter == nil {
					continue // a constant
				}
				s.variables, s.handles = append(s.variables, v), append(s.handles, parameter.GetParameterHandle())
				if v.ChangedInGraph(g) {
					s.changed, out = append(s.changed, v), append(out, v.NodeValue(g))
				}
			}
			return out
		})
		if err != nil {
			return nil, err
		}
		s.exec = exec.WithName(fmt.Sprintf("%T", key)).SetSideParamsHook(r.fillVariables(s))
		g, err := exec.Compile(inputs...)
		if err == nil {
			err = r.initialize(s)
		}
		if err != nil {
			exec.Finalize()
			if failure != nil {
				err = failure
			}
			return nil, err
		}
		s.needs, s.needsErr = gx.CompiledMemory(g)
		return s, nil
	})
}

// initialize gives values to a graph's variables that have none.
func (r *runner) initialize(s *sessionGraph) error {
	building.Lock()
	defer building.Unlock()
	values.Lock()
	defer values.Unlock()
	for _, v := range s.variables {
		if !v.HasValue() {
			return r.store.InitializeVariables(r.backend, nil)
		}
	}
	return nil
}

// fillVariables hands a graph the values that its variables have when it is called.
func (r *runner) fillVariables(s *sessionGraph) graph.SideParamsFn {
	return func(_ *graph.Graph, buffers []compute.Buffer, _ []bool) error {
		values.Lock()
		defer values.Unlock()
		for i, v := range s.variables {
			value, err := v.Value()
			if err != nil {
				return err
			}
			if buffers[s.handles[i]], err = value.Buffer(r.backend, 0); err != nil {
				return err
			}
		}
		return nil
	}
}

// run calls a program once it is compiled. Its outputs are the caller's. The wait for the compiler
// ends with ctx. The call does too where whole is false; its outputs are freed then.
func (r *runner) run(ctx context.Context, p program, whole bool, arguments func() ([]any, error)) ([]*tensors.Tensor, error) {
	if err := p.Wait(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	args, err := arguments()
	if err != nil {
		return nil, err
	}
	if whole {
		ctx = context.WithoutCancel(ctx)
	}
	return generate.Call(ctx, &r.programs, func() ([]*tensors.Tensor, error) {
		out, err := p.Of.exec.Call(args...)
		if err != nil {
			return nil, err
		}
		own := len(out) - len(p.Of.changed)
		values.Lock()
		defer values.Unlock()
		for i, v := range p.Of.changed {
			if err := v.SetValue(out[own+i]); err != nil {
				finalize(out)
				return nil, err
			}
		}
		return out[:own], nil
	}, finalize)
}

// release ends a session's use. With the last session the compiled graphs go.
func (r *runner) release() {
	if r.sessions.Add(-1) == 0 {
		r.programs.Finalize()
	}
}
