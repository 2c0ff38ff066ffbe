package gx

import (
	"github.com/gomlx/gomlx/core/graph"
)

// Loop repeats body while cond holds, as one XLA While: the state never leaves the device, and XLA
// updates it in place where body only writes slices of it.
//
// Both functions get the state as nodes of their own closure, in the order of initial. cond returns
// a bool scalar, body the next state with the same shapes. Nodes of the enclosing function may be
// used inside only as operands of dots and of dynamic slices; anything used elementwise has to be
// part of the state.
func Loop(initial []*graph.Node, cond func(state []*graph.Node) *graph.Node, body func(state []*graph.Node) []*graph.Node) []*graph.Node {
	g := initial[0].Graph()
	parameters := func(g *graph.Graph) []*graph.Node {
		state := make([]*graph.Node, len(initial))
		for i, n := range initial {
			// MLIR's names must differ from those of the enclosing functions.
			state[i] = graph.Parameter(g, g.UniqueName("state"), n.Shape())
		}
		return state
	}
	condition := NewClosure(g, func(g *graph.Graph) []*graph.Node { return []*graph.Node{cond(parameters(g))} })
	step := NewClosure(g, func(g *graph.Graph) []*graph.Node { return body(parameters(g)) })
	return behindLoop(graph.While(condition, step, initial...))
}

// LoopOver is Loop with values of the enclosing function that body reads and does not change: it
// gets them as nodes of its own closure.
//
// They go through the While as state that stays the same, which XLA neither copies nor writes, and
// may be used in any operation.
func LoopOver(captured, initial []*graph.Node, cond func(state []*graph.Node) *graph.Node, body func(captured, state []*graph.Node) []*graph.Node) []*graph.Node {
	n := len(initial)
	out := Loop(append(append([]*graph.Node{}, initial...), captured...),
		func(all []*graph.Node) *graph.Node { return cond(all[:n]) },
		func(all []*graph.Node) []*graph.Node {
			return append(body(all[n:], all[:n]), all[n:]...)
		})
	return out[:n]
}
