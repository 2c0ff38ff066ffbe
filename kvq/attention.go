package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// stepMasks are what is added to scores in this step, the same for all layers. [B, t, ·] float32.
type stepMasks struct{ codes, exact, own *Node }

func (c *quantizedCache) stepMasks() *stepMasks {
	if c.masks == nil {
		window := c.plan.shape.SlidingWindow
		position := tokenIndex(c.start, c.length, c.step)
		c.masks = &stepMasks{
			codes: bias(visibleTokens(c.codeIndex, position, window)),
			exact: bias(visibleTokens(c.exactIndex, position, window)),
			own:   bias(visibleTokens(position, position, window)),
		}
	}
	return c.masks
}

func (c *quantizedCache) attendTo(layer int, queries *Node) *Node {
	checkAttend(c.plan.shape, c.step, queries)
	keys, values := c.newKeys[layer], c.newValues[layer]
	if c.fresh {
		return attendPrompt(queries, keys, values, c.start, c.plan.shape.SlidingWindow)
	}
	if c.step == 1 {
		if k, ok := c.plan.kernelOf(c.plan.layers[layer], queries); ok {
			return unfoldQueries(c.attendKernel(layer, Reshape(queries, k.batch, k.heads, k.queries, k.dim), k).result(), queries)
		}
	}
	q := foldQueries(queries, c.plan.shape.KVHeads) // [B, K, Q, D]
	m, s := c.stepMasks(), c.layers[layer]
	scores := Add(scoresOf(q, s.exactKeys), foldBias(m.exact, dims(q)[2]))
	sum := newPartial(scores, func(w *Node) *Node { return weighedSum(w, s.exactValues) })
	if c.step > 1 { // the window does not hold the chunk yet
		sum = sum.merge(newPartial(Add(scoresOf(q, keys), foldBias(m.own, dims(q)[2])), func(w *Node) *Node { return weighedSum(w, values) }))
	}
	return unfoldQueries(sum.merge(c.attendCodes(layer, q)).result(), queries)
}

// attendCodes is attention over the coded tokens of one layer, by graph operations. q [B, K, Q, D], scaled.
func (c *quantizedCache) attendCodes(layer int, q *Node) partial {
	l := c.plan.layers[layer]
	q = matchFloat32(q)
	if l.key.Rotate {
		q = Rotate(q)
	}
	attend := c.attendTiles
	if c.step == 1 && c.plan.onePass(l, gx.OnGPU(q.Graph())) {
		attend = c.attendBlocks
	}
	sum := attend(layer, q)
	if l.value.Rotate {
		sum.out = Rotate(sum.out)
	}
	return sum
}

// onePass tells whether single tokens attend by attendBlocks. Codes of a byte each are not summed well on a CPU, and codes of two groups in one
// word not at all.
func (p *Plan) onePass(l layerPlan, gpu bool) bool {
	for _, s := range []codes.Format{l.key, l.value} {
		if s.Packed && !s.Words().Whole || !s.Packed && !gpu && !p.fused {
			return false
		}
	}
	return !p.tiled
}

// scoresOfCodes and tokenOf are keys of functions.
type (
	scoresOfCodes struct{ codes.Format }
	tokenOf       struct{}
)

// attendBlocks is attention of one token over all blocks at once: the codes are read, multiplied and summed in two passes, one over keys and
// one over values. Between them are only the scores.
func (c *quantizedCache) attendBlocks(layer int, q *Node) partial {
	l, s := c.plan.layers[layer], c.layers[layer]
	o := codes.NewSums(c.length)
	// A function, whose result is stored: otherwise XLA's CPU compiler makes the scores twice, for the largest and for the weights.
	in := append([]*Node{q, c.length, c.stepMasks().codes}, s.key.Nodes()...) // mask: [B, 1, N*32]
	scores := c.functions.Call(scoresOfCodes{l.key}, in, func(in []*Node) []*Node {
		keys, _ := l.key.Take(in[3:])
		scores := l.key.Scores(in[0], keys, codes.NewSums(in[1])) // [N, B, K, Q, 32]
		d := dims(scores)
		mask := Reshape(TransposeAllAxes(Reshape(in[2], d[1], d[0], codes.BlockTokens), 1, 0, 2), d[0], d[1], 1, 1, codes.BlockTokens)
		return []*Node{Add(scores, gx.BroadcastToDims(mask, d...))}
	})[0]
	d := dims(scores)
	column := func(x *Node) *Node { return Reshape(x, d[1], d[2], d[3], 1) }
	top := gx.ReduceMaxAndKeep(scores, 0, 4)
	weights := Exp(Sub(scores, top))
	return partial{
		max: column(top),
		sum: column(gx.ReduceSum(o.Blocks(weights), 3)),
		out: l.value.WeightedSum(weights, s.value, o),
	}
}

// attendTiles is attention of several tokens, tile by tile with a running maximum (FlashAttention's online softmax): a tile is as much
// as is ever unpacked.
func (c *quantizedCache) attendTiles(layer int, q *Node) partial {
	p, m, g := c.plan, c.stepMasks(), q.Graph()
	l, s := p.layers[layer], c.layers[layer]
	b, kv, n, d, t := p.shape.Batch, p.shape.KVHeads, dims(q)[2], p.shape.HeadDim, c.step
	tile, last := p.tileBlocks(), p.codeSlots/codes.BlockTokens-p.tileBlocks()
	tiles := Div(gx.AddScalar(gx.ReduceMax(c.used), tile*codes.BlockTokens-1), gx.Scalar(g, dtypes.Int32, tile*codes.BlockTokens))
	column := shapes.Make(dtypes.Float32, b, kv, n, 1)
	captured := append([]*Node{q, m.codes}, append(s.key.Nodes(), s.value.Nodes()...)...)
	out := gx.LoopOver(captured,
		[]*Node{gx.Scalar(g, dtypes.Int32, 0), tiles, gx.Fill(g, column, masked), gx.Zeros(g, column), gx.Zeros(g, shapes.Make(dtypes.Float32, b, kv, n, d))},
		func(st []*Node) *Node { return LessThan(st[0], st[1]) },
		func(captured, st []*Node) []*Node {
			i, tiles, sum := st[0], st[1], partial{st[2], st[3], st[4]}
			q, codesMask, arrays := captured[0], captured[1], captured[2:]
			zero := gx.Scalar(i.Graph(), dtypes.Int32, 0)
			// The last tile is shifted back so that it is whole; what the tile before it covered is masked.
			first := gx.MulScalar(i, tile)
			block := gx.MinScalar(first, last)
			token := gx.MulScalar(block, codes.BlockTokens)
			mask := DynamicSlice(codesMask, []*Node{zero, zero, token}, []int{b, t, tile * codes.BlockTokens})
			slot := Add(Iota(i.Graph(), shapes.Make(dtypes.Int32, b, t, tile*codes.BlockTokens), 2), token)
			mask = Where(LessThan(slot, gx.MulScalar(first, codes.BlockTokens)), gx.Fill(i.Graph(), mask.Shape(), masked), mask)
			keyArrays, arrays := l.key.Take(arrays)
			valueArrays, _ := l.value.Take(arrays)
			keys := l.key.Decode(l.key.Tile(keyArrays, block, tile))
			values := l.value.Decode(l.value.Tile(valueArrays, block, tile))
			scores := Add(scoresOf(q, keys), foldBias(mask, n))
			sum = sum.merge(newPartial(scores, func(w *Node) *Node { return weighedSum(w, values) }))
			return []*Node{gx.AddScalar(i, 1), tiles, sum.max, sum.sum, sum.out}
		})
	return partial{out[2], out[3], out[4]}
}

// tileBlocks is how many blocks are unpacked at once: about tileRows rows of D over all heads, in whole groups.
func (p *Plan) tileBlocks() int {
	unit := p.block / codes.BlockTokens
	n := max(tileRows/(p.shape.KVHeads*p.shape.Batch*codes.BlockTokens)/unit, 1) * unit
	return min(n, p.codeSlots/codes.BlockTokens)
}

// tileRows of float32 with D = 128 are 4 MB: what fits a processor's cache.
const tileRows = 8192

func matchFloat32(x *Node) *Node {
	if x.DType() == dtypes.Float32 {
		return x
	}
	return ConvertDType(x, dtypes.Float32)
}
