package kvq

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// startEmpty begins to compile the graph of a cache without tokens: start [B] to the cache.
func (r *runner) startEmpty(plan *Plan) program {
	type emptyKey struct{ batch, capacity int }
	start := shapes.Make(dtypes.Int32, plan.shape.Batch)
	return r.start(emptyKey{plan.shape.Batch, plan.shape.Capacity}, []shapes.Shape{start}, 0, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		return plan.Init(in[0]).Nodes()
	})
}

// startInsert begins to compile [Cache.Insert]: the cache, the one with the prompts, and rows [n]
// to the cache.
func (r *runner) startInsert(plan, prompts *Plan) program {
	type insertKey struct{ capacity, prompts, columns int }
	state, n := plan.stateShapes, prompts.shape.Batch
	inputs := slices.Concat(state, prompts.stateShapes, []shapes.Shape{shapes.Make(dtypes.Int32, n)})
	return r.start(insertKey{plan.shape.Capacity, n, prompts.shape.Capacity}, inputs, len(state), func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		c := plan.From(in[:len(state)])
		c.Insert(in[len(in)-1], prompts.From(in[len(state):len(in)-1]))
		return c.Nodes()
	})
}

// startBatchStep begins to compile a step: the cache, the new tokens of each row [B] and inputs to
// the cache and the outputs.
func (r *runner) startBatchStep(plan *Plan, inputs []shapes.Shape) program {
	type batchStepKey struct{ stepKey }
	state := plan.stateShapes
	all := slices.Concat(state, []shapes.Shape{shapes.Make(dtypes.Int32, plan.shape.Batch)}, inputs)
	return r.start(batchStepKey{newStepKey(plan, false, inputs)}, all, len(state), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		c := plan.From(in[:len(state)])
		c.NewTokens(in[len(state)])
		return r.stepGraph(scope, c, in[len(state)+1:])
	})
}
