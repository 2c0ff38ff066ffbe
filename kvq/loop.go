package kvq

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Loop repeats body while cond holds, as one XLA While: the state never leaves the device, and XLA
// updates it in place. Unlike graph.While it takes a model made of GoMLX's layers: the variables of
// scope's store that body asks for become part of the loop's state. It may stand in another Loop,
// and next to graph code with the same variables. It returns the last state.
//
// initial are the first values of the state, at least one; cond gets the state and returns a bool
// scalar; body returns the next state, in the same shapes. body is called twice, first in a graph
// that is thrown away, to see which variables it asks for. Each time its scope is scope itself with
// no sub-scope visited. Variables that it changes (a random state, say) keep the last value.
//
// Inside, a node of the graph around is a mistake that is not always seen: hand it in as state.
// scope may be nil for a body without variables, which is called once.
//
// A [Session] makes such a loop by itself; this is for loops of one's own.
func Loop(scope *model.Scope, initial []*Node, cond func(state []*Node) *Node, body func(scope *model.Scope, state []*Node) []*Node) []*Node {
	if len(initial) == 0 {
		exceptions.Panicf("kvq.Loop: no state, want at least one node")
	}
	if scope == nil {
		return gx.Loop(initial, cond, func(state []*Node) []*Node { return body(nil, state) })
	}
	state := make([]shapes.Shape, len(initial))
	for i, n := range initial {
		state[i] = n.Shape()
	}
	g := initial[0].Graph()
	used := usedVariables(g.Backend(), scope, scope.IsTraining(g), state, func(scope *model.Scope, state []*Node) { body(scope, state) })
	return loopWith(used, scope, initial, cond, body)
}

// loopWith is Loop with known variables.
func loopWith(variables []*model.Variable, scope *model.Scope, initial []*Node, cond func(state []*Node) *Node, body func(scope *model.Scope, state []*Node) []*Node) []*Node {
	n := len(initial)
	all := append([]*Node{}, initial...)
	for _, v := range variables {
		all = append(all, v.NodeValue(initial[0].Graph()))
	}
	changed := make([]bool, len(variables))
	out := gx.Loop(all,
		func(state []*Node) *Node { return cond(state[:n]) },
		func(state []*Node) []*Node {
			// Inside, a variable is what the loop carries of it.
			for i, v := range variables {
				v.SetNodeValue(state[n+i])
			}
			next := body(scope.ResetVisited(), state[:n])
			if len(next) != n {
				exceptions.Panicf("kvq.Loop: body returned %d nodes, want the %d of the state", len(next), n)
			}
			next = append([]*Node{}, next...)
			for _, v := range variables {
				next = append(next, v.NodeValue(state[0].Graph()))
			}
			for i, v := range variables {
				changed[i] = next[n+i] != state[n+i]
				v.SetNodeValue(all[n+i])
			}
			return next
		})
	for i, v := range variables {
		if changed[i] {
			v.SetNodeValue(out[n+i])
		}
	}
	return out[:n]
}

// usedVariables are the variables of scope's store that fn asks for, in the order of the store. fn
// is called in a graph of its own, with parameters of these shapes.
func usedVariables(backend compute.Backend, scope *model.Scope, training bool, inputs []shapes.Shape, fn func(scope *model.Scope, in []*Node)) []*model.Variable {
	store := scope.Store()
	if store.VariablesAsConst() {
		exceptions.Panicf("kvq.Loop: the store's variables are constants (WithVariableAsConst), want them as variables in a loop")
	}
	g := NewGraph(backend, "kvq.variables")
	defer g.Finalize()
	model.SetStore(g, store)
	scope.SetTraining(g, training)
	nodes := make([]*Node, len(inputs))
	for i, s := range inputs {
		nodes[i] = Parameter(g, g.UniqueName("in"), s)
	}
	fn(scope.ResetVisited(), nodes)
	var used []*model.Variable
	for v := range store.IterVariables() {
		if v.InUseByGraph(g) {
			used = append(used, v)
		}
	}
	return used
}
