package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// stepMasks are what is added to scores in this step, the same for all layers. All [B, t, ·] float32.
type stepMasks struct {
	codes, exact, own *Node
	tiles             *Node // int32 []: tiles that hold codes
}

func (c *quantizedCache) stepMasks() *stepMasks {
	if c.masks != nil {
		return c.masks
	}
	window := c.plan.shape.SlidingWindow
	position := tokenIndex(c.start, c.length, c.step)
	tile := c.plan.tileTokens()
	g := c.length.Graph()
	c.masks = &stepMasks{
		codes: bias(visibleTokens(c.codeIndex, position, window)),
		exact: bias(visibleTokens(c.exactIndex, position, window)),
		own:   bias(visibleTokens(position, position, window)),
		tiles: Div(gx.AddScalar(ReduceMax(c.used), tile-1), gx.Scalar(g, dtypes.Int32, tile)),
	}
	return c.masks
}

func (c *quantizedCache) Attend(layer int, queries *Node) *Node {
	checkAttend(c.plan.shape, c.step, queries)
	keys, values := c.newKeys[layer], c.newValues[layer]
	if c.fresh {
		return attendPrompt(queries, keys, values, c.start, c.plan.shape.SlidingWindow)
	}
	q := foldQueries(queries, c.plan.shape.KVHeads) // [B, K, Q, D]
	at := c.plan.where[layer]
	seg, s, m := c.plan.segments[at.segment], c.segments[at.segment], c.stepMasks()
	of := func(exact *Node) *Node {
		return Reshape(Slice(exact, AxisElem(at.index)), dims(exact)[1:]...) // [B, K, E, D]
	}
	exactValues := of(s.exactValues)
	n := q.Shape().Dim(2)
	scores := Concatenate([]*Node{
		Add(scoresOf(q, of(s.exactKeys)), foldBias(m.exact, n)),
		Add(scoresOf(q, keys), foldBias(m.own, n)),
	}, -1)
	e := c.plan.exactSlots()
	exact := newPartial(scores, func(w *Node) *Node {
		window := Slice(w, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, e))
		own := Slice(w, AxisRange(), AxisRange(), AxisRange(), AxisRange(e))
		return Add(weighedSum(window, exactValues), weighedSum(own, values))
	})
	return unfoldQueries(exact.merge(c.attendCodes(seg, s, at.index, q)).result(), queries)
}

// attendCodes is attention over the coded tokens of one layer, tile by tile with a running maximum (FlashAttention's online softmax): a
// tile is as much as is ever unpacked.
//
// q [B, K, Q, D], scaled.
func (c *quantizedCache) attendCodes(seg segment, s segmentState, index int, q *Node) partial {
	p, m, g := c.plan, c.stepMasks(), q.Graph()
	b, kv, n, d, t := p.shape.Batch, p.shape.KVHeads, q.Shape().Dim(2), p.shape.HeadDim, c.step
	tile := p.tileTokens()
	q = ConvertDType(q, dtypes.Float32)
	if seg.key.rotate {
		q = Rotate(q)
	}
	column := shapes.Make(dtypes.Float32, b, kv, n, 1)
	out := gx.Loop(
		[]*Node{gx.Scalar(g, dtypes.Int32, 0), m.tiles, gx.Fill(g, column, masked), gx.Zeros(g, column), gx.Zeros(g, shapes.Make(dtypes.Float32, b, kv, n, d))},
		func(st []*Node) *Node { return LessThan(st[0], st[1]) },
		func(st []*Node) []*Node {
			i, tiles, sum := st[0], st[1], partial{st[2], st[3], st[4]}
			g := i.Graph()
			zero, layer := gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, index)
			// The last tile is shifted back so that it is whole; what the tile before it covered is masked.
			first := gx.MulScalar(i, tile)
			from := Min(first, gx.Scalar(g, dtypes.Int32, p.codeSlots-tile))
			mask := DynamicSlice(m.codes, []*Node{zero, zero, from}, []int{b, t, tile})
			seen := LessThan(Add(Iota(g, shapes.Make(dtypes.Int32, b, t, tile), 2), from), first)
			mask = Where(seen, gx.Fill(g, mask.Shape(), masked), mask)
			keys := seg.key.decode(seg.key.tile(s.key, layer, from, tile))
			values := seg.value.decode(seg.value.tile(s.value, layer, from, tile))
			scores := Add(scoresOf(q, keys), foldBias(mask, n))
			sum = sum.merge(newPartial(scores, func(w *Node) *Node { return weighedSum(w, values) }))
			return []*Node{gx.AddScalar(i, 1), tiles, sum.max, sum.sum, sum.out}
		})
	if seg.value.rotate {
		out[4] = Rotate(out[4])
	}
	return partial{out[2], out[3], out[4]}
}

// tileTokens is how many coded tokens are unpacked at once: about tileRows rows of D over all heads, a multiple of every group.
func (p *Plan) tileTokens() int {
	n := max(tileRows/(p.shape.KVHeads*p.shape.Batch), minTile) / p.unit * p.unit
	return min(max(n, p.unit), p.codeSlots)
}

const (
	tileRows = 8192 // some 4 MB as float32 with D = 128: what fits a processor's cache (measured, docs/benchmarks.md)
	minTile  = 128
)
