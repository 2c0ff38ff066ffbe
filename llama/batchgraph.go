package llama

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
)

// The graphs of a Batch, whose rows have lengths of their own; its loop is startDecode's.

type emptyKey struct{ batch, capacity int }

func (k emptyKey) String() string {
	return fmt.Sprintf("an empty cache of %d tokens, %s", k.capacity, rowsText(k.batch))
}

// startEmpty begins to compile the graph of a cache without tokens: start [B] to the cache.
func (g *Generator) startEmpty(plan *kvq.Plan) program {
	b, capacity := plan.Shape().Batch, plan.Shape().Capacity
	return g.programs.start(emptyKey{b, capacity}, wholes(shapes.Make(dtypes.Int32, b)), plan.HeadAxes(),
		func(_ modelNodes, in []*Node) []*Node { return plan.Init(in[0]).Nodes() })
}

type insertKey struct{ batch, capacity, columns int }

func (k insertKey) String() string {
	return fmt.Sprintf("putting a prompt of %d tokens into a cache of %d, %s", k.columns, k.capacity, rowsText(k.batch))
}

// startInsert begins to compile [kvq.Cache.Insert] of one prompt: the cache, the one with the
// prompt, and the row [1] to the cache.
func (g *Generator) startInsert(plan, prompt *kvq.Plan) program {
	state := g.model.on.layouts(plan)
	inputs := slices.Concat(state, g.model.on.layouts(prompt), wholes(shapes.Make(dtypes.Int32, 1)))
	key := insertKey{plan.Shape().Batch, plan.Shape().Capacity, prompt.Shape().Capacity}
	return g.programs.start(key, inputs, plan.HeadAxes(), func(_ modelNodes, in []*Node) []*Node {
		gx.Reuse(in[:len(state)])
		c := plan.From(in[:len(state)])
		c.Insert(in[len(in)-1], prompt.From(in[len(state):len(in)-1]))
		return c.Nodes()
	})
}

type extendKey struct{ batch, capacity, columns int }

func (k extendKey) String() string {
	return fmt.Sprintf("%d more tokens, a cache of %d, %s", k.columns, k.capacity, rowsText(k.batch))
}

// startExtend begins to compile a step of several columns: the cache, ids [B, t], how many of each
// row's columns, the last ones, are tokens [B], and one row [1] to the cache and that row's logits
// [1, V].
func (g *Generator) startExtend(plan *kvq.Plan, columns int) program {
	state, b := g.model.on.layouts(plan), plan.Shape().Batch
	i32 := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Int32, dims...) }
	return g.programs.start(extendKey{b, plan.Shape().Capacity, columns}, append(state, wholes(i32(b, columns), i32(b), i32(1))...), plan.HeadAxes(),
		func(w modelNodes, in []*Node) []*Node {
			n := len(state)
			gx.Reuse(in[:n])
			c := plan.From(in[:n])
			c.NewTokens(in[n+1])
			hidden := g.model.hidden(w, in[n], c, nil)
			zero := gx.Scalar(hidden.Graph(), dtypes.Int32, 0)
			one := gx.DynamicSlice(hidden, []*Node{Reshape(in[n+2]), zero, zero}, []int{1, columns, hidden.Shape().Dim(2)})
			return append(c.Nodes(), w.lastLogits(one))
		})
}

type cropKey struct{ batch, capacity int }

func (k cropKey) String() string {
	return fmt.Sprintf("forgetting tokens of a cache of %d, %s", k.capacity, rowsText(k.batch))
}

// startCrop begins to compile [kvq.Cache.Crop]: the cache and the tokens to forget [B] to the
// cache.
func (g *Generator) startCrop(plan *kvq.Plan) program {
	state, b := g.model.on.layouts(plan), plan.Shape().Batch
	return g.programs.start(cropKey{b, plan.Shape().Capacity}, append(state, wholes(shapes.Make(dtypes.Int32, b))...), plan.HeadAxes(),
		func(_ modelNodes, in []*Node) []*Node {
			gx.Reuse(in[:len(state)])
			c := plan.From(in[:len(state)])
			c.Crop(in[len(state)])
			return c.Nodes()
		})
}
