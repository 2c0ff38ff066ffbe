package gx

import (
	"reflect"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/private"
)

// DynamicSlice is graph.DynamicSlice, also where a backend has no such operation: the pure-Go one
// of compute v0.1.14. There it is a gather of one slice, which likewise moves a slice that would
// reach over an end back inside.
func DynamicSlice(x *graph.Node, start []*graph.Node, size []int) *graph.Node {
	if x.Graph().Backend().Capabilities().Operations[compute.OpTypeDynamicSlice] {
		return graph.DynamicSlice(x, start, size)
	}
	axes, at := make([]int, x.Rank()), make([]*graph.Node, x.Rank())
	for i := range axes {
		axes[i], at[i] = i, graph.Reshape(start[i], 1)
	}
	if len(at) > 1 {
		at[0] = graph.Concatenate(at, 0)
	}
	return graph.GatherSlices(x, axes, at[0], size, true)
}

// executesInOrder is the backend's OpsExecutionSequential.
const executesInOrder = 2

// loopsEnd reports whether a pure-Go backend executes operations one after the other. Otherwise
// compute v0.1.14 may stop for good in a product inside of a loop: executors of the functions
// around it, which wait, take all workers, and the product waits for one (workerspool.Saturate).
// Fewer than 8 processors are too few.
func loopsEnd(backend compute.Backend) error {
	if private.GoExecution.Of(backend).Int() == executesInOrder {
		return nil
	}
	return errors.New("kvqbook: GoMLX's pure-Go backend may stop for good in a loop with products; " +
		"open it as go:ops_sequential (GOMLX_BACKEND=go:ops_sequential, or compute.NewWithConfig)")
}

// settle brings the closure under construction into its final form on the pure-Go backend, and
// returns its outputs; elsewhere it does nothing.
//
// compute v0.1.14 prepares a closure for execution when it is built, and optimizes all functions,
// closures too, when the graph is compiled (internal/gobackend/builder.go, Compile). What it then
// changes is missing in what it prepared: the closure fails with "input 0 for node Where not
// computed yet". So the optimization comes first here, for this closure alone; afterwards it finds
// nothing more to change.
func settle(g *graph.Graph, outputs []*graph.Node) []*graph.Node {
	if !inspected(g.Backend()).pureGo {
		return outputs
	}
	// The optimization may give a node another shape and put a broadcast behind it, of which
	// GoMLX's nodes do not know.
	settled := identities(outputs)
	builder := private.GraphBuilder.Of(g)
	functions := private.GoBuilderFunctions.Of(builder)
	all := reflect.ValueOf(functions.Interface())
	one := reflect.MakeSlice(all.Type(), 1, 1)
	one.Index(0).Set(private.FunctionBackend.Of(g.CurrentFunc()).Elem())
	functions.Set(one)
	defer functions.Set(all)
	if err := builder.Interface().(optimizer).Optimize(); err != nil {
		exceptions.Panicf("gx: %v", err)
	}
	return settled
}

// behindLoop puts nodes behind the results of a While on the pure-Go backend. compute v0.1.14 looks
// at every result when the loop has ended, and fails with "index out of range" where the last ones
// are not used and nothing follows (internal/gobackend/executable.go, executeNode).
func behindLoop(results []*graph.Node) []*graph.Node {
	if !inspected(results[0].Graph().Backend()).pureGo {
		return results
	}
	return identities(results)
}

func identities(nodes []*graph.Node) []*graph.Node {
	out := make([]*graph.Node, len(nodes))
	for i, x := range nodes {
		out[i] = graph.Identity(x)
	}
	return out
}

// optimizer is what the pure-Go backend's builder is.
type optimizer interface{ Optimize() error }

func optimizes(builder compute.Builder) error {
	if _, ok := builder.(optimizer); !ok {
		return private.Error("gobackend.Builder.Optimize is not there")
	}
	return nil
}
