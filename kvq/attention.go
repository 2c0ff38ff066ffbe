package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
	"github.com/kvqbook/kvqbook/kvq/internal/kernel"
)

// stepMasks are what the step's queries see of codes, of exact tokens and of the step's own, the
// same for all layers of one window.
type stepMasks struct{ codes, exact, own attend.Seen }

func (c *quantizedCache) stepMasks(layer int) stepMasks {
	window := c.plan.shape.window(layer)
	m, ok := c.masks[window]
	if !ok {
		position := c.plan.shape.newest(c.start, c.length, c.counts, c.step)
		view := c.plan.shape.view(window, position, c.asked)
		older := view.Older()
		m = stepMasks{older.Of(c.codeIndex), older.Of(c.exactIndex), view.Of(position)}
		if c.masks == nil {
			c.masks = map[int]stepMasks{}
		}
		c.masks[window] = m
	}
	return m
}

func (c *quantizedCache) attendTo(layer int, queries *Node) *Node {
	checkAttend(c.plan.shape, c.step, c.fresh, queries)
	c.asked.check(queries, c.counts)
	keys, values := c.newKeys[layer], c.newValues[layer]
	if c.fresh {
		if !c.stored[layer] {
			c.learn(layer, queries)
			c.storePrompt(layer)
		}
		out := c.plan.shape.prompt(layer, queries, keys, values, c.start, c.asked)
		return c.codeFirst(layer, out)
	}
	form := c.form
	if queries.DType() != c.formOf {
		form = c.attendForm(queries.Graph(), layer, dims(queries)[2], queries.DType())
	}
	if form == attend.Kernel {
		return attend.UnfoldQueries(c.attendKernel(layer, queries), queries)
	}
	scores := c.plan.shape.scores()
	q := attend.FoldQueries(queries, c.plan.shape.KVHeads, scores.Scale) // [B, K, Q, D]
	m, s := c.stepMasks(layer), c.layers[layer]
	sum := scores.Exact(q, s.exactKeys, s.exactValues, m.exact)
	if c.step > 1 { // the window does not hold the chunk yet
		sum = sum.Merge(scores.Exact(q, keys, values, m.own))
	}
	return attend.UnfoldQueries(sum.Merge(c.coded(layer).Attend(form, q)).Result(), queries)
}

// coded is what attention by graph operations reads of a layer's codes.
func (c *quantizedCache) coded(layer int) attend.Coded {
	p, l, s := c.plan, c.plan.layers[layer], c.layers[layer]
	return attend.Coded{
		Key: l.key, Value: l.value, Keys: s.key, Values: s.value,
		Scores: p.shape.scores(), Seen: c.stepMasks(layer).codes, Used: c.used, Length: largest(c.length),
		TileBlocks: attend.TileBlocks(p.shape.KVHeads*p.shape.Batch, p.block/codes.BlockTokens, p.codeSlots/codes.BlockTokens),
		Functions:  &c.functions,
	}
}

// attendForm is the form in which so many tokens' queries of a dtype attend to a layer's codes.
func (c *quantizedCache) attendForm(g *Graph, layer, tokens int, queries dtypes.DType) Form {
	device, lacks := deviceOf(g.Backend())
	query := c.plan.query(layer, device, lacks, gx.Sharing(g), tokens, queries)
	// In a function of one layer that was given masks there are no indices for the kernel.
	query.Masked = c.asked.any() || c.codeIndex == nil
	form, _ := attend.Choose(query)
	return form
}

// attendKernel is attention of single tokens, queries [B, H, 1, D], over all that a layer holds:
// [B, K, Q, E] float32, E elements of a value.
func (c *quantizedCache) attendKernel(layer int, queries *Node) *Node {
	shape, s, device := c.plan.shape, c.layers[layer], gpu.Of(queries.Graph().Backend())
	l, position := c.plan.layers[layer], c.newIndex()
	if shape.Attention.Cross { // there is no new token
		position = gx.AddScalar(position, -1)
	}
	of := kernel.Shape{
		Key: l.key, Value: l.value,
		Batch: shape.Batch, Heads: shape.KVHeads, Queries: dims(queries)[1] / shape.KVHeads,
		Blocks: c.plan.codeSlots / codes.BlockTokens, Exact: c.plan.exactSlots(), SlidingWindow: shape.window(layer), Scores: shape.scores(),
		CacheType: shape.DType, QueryType: queries.DType(), Processors: device.Processors,
	}
	in := kernel.Inputs{
		Queries:  Reshape(queries, of.Batch, of.Heads, of.Queries, shape.HeadDim),
		Position: position, Used: c.used, CodeIndex: c.codeIndex, Keys: s.key, Values: s.value,
		ExactIndex: c.exactIndex, ExactKeys: s.exactKeys, ExactValues: s.exactValues,
	}
	if !device.CUDA() {
		return cpukernel.Attend(of, in)
	}
	return kernel.New(of).Attend(in).Result()
}
