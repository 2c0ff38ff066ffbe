package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// flush moves blocks of the oldest tokens from the window to codes, row by row, until no row holds as many as the threshold.
//
// It is a While that mostly runs zero times. Rows of a batch reach the threshold at their own steps where blocks have to start at the
// row's own token (per-channel groups), all at the same step under transformers' policy. Each token is coded here, once, and its codes
// are never touched again.
func (c *quantizedCache) flush() {
	c.replace(gx.Loop(c.Nodes(),
		func(st []*Node) *Node {
			waiting := newQuantizedCache(c.plan, st).waiting()
			return GreaterOrEqual(ReduceMax(waiting), gx.Scalar(waiting.Graph(), dtypes.Int32, c.plan.threshold))
		},
		func(st []*Node) []*Node {
			inner := newQuantizedCache(c.plan, st)
			inner.flushRow()
			return inner.Nodes()
		}))
}

// waiting is the number of tokens of each row in the window that are not coded, [B] int32; at most 0 while only sinks are filled.
func (c *quantizedCache) waiting() *Node { return Sub(Sub(c.length, c.start), c.next) }

// flushRow codes the oldest block of the row that has the most tokens waiting.
func (c *quantizedCache) flushRow() {
	p, g := c.plan, c.length.Graph()
	zero := gx.Scalar(g, dtypes.Int32, 0)
	row := ArgMax(c.waiting(), 0)
	of := func(x *Node) *Node { return Reshape(DynamicSlice(x, []*Node{row}, []int{1})) }
	next, used := of(c.next), of(c.used)
	// Two copies of the ring in a row: the block lies in one piece, wherever it starts.
	offset := Rem(Add(of(c.start), next), gx.Scalar(g, dtypes.Int32, p.windowSlots))
	block := func(exact *Node) *Node {
		d := exact.Shape().Dimensions
		ring := DynamicSlice(exact, []*Node{zero, row, zero, gx.Scalar(g, dtypes.Int32, p.sinks), zero}, []int{d[0], 1, d[2], p.windowSlots, d[4]})
		return DynamicSlice(Concatenate([]*Node{ring, ring}, 3), []*Node{zero, zero, zero, offset, zero}, []int{d[0], 1, d[2], p.block, d[4]})
	}
	for i, seg := range p.segments {
		s := &c.segments[i]
		s.key = seg.key.write(s.key, seg.key.encode(block(s.exactKeys), nil), zero, row, used)
		s.value = seg.value.write(s.value, seg.value.encode(block(s.exactValues), nil), zero, row, used)
	}
	tokens := Add(Iota(g, shapes.Make(dtypes.Int32, 1, p.block), 1), next)
	c.codeIndex = DynamicUpdateSlice(c.codeIndex, tokens, []*Node{row, used})

	here := Equal(Iota(g, c.next.Shape(), 0), row)
	c.next = Where(here, gx.AddScalar(c.next, p.block), c.next)
	c.used = Where(here, gx.AddScalar(c.used, p.block), c.used)
	c.exactIndex = p.forgetCoded(c.exactIndex, c.next)
}

// forgetCoded takes tokens before next [B] out of the window's index; sinks stay.
func (p *Plan) forgetCoded(exactIndex, next *Node) *Node {
	g, b, e := exactIndex.Graph(), exactIndex.Shape().Dim(0), exactIndex.Shape().Dim(1)
	inRing := gx.GreaterOrEqualScalar(Iota(g, exactIndex.Shape(), 1), p.sinks)
	old := LessThan(exactIndex, BroadcastToDims(Reshape(next, b, 1), b, e))
	return Where(And(inRing, old), gx.Fill(g, exactIndex.Shape(), -1), exactIndex)
}

// storePrompt codes the prompt of one layer, [B, K, T, D] in newKeys and newValues, as far as the policy wants it coded, and fills
// sinks and window. Layer by layer, so that no more than one layer's keys and values are alive in full precision.
func (c *quantizedCache) storePrompt(layer int) {
	p := c.plan
	at := p.where[layer]
	seg, s := p.segments[at.segment], &c.segments[at.segment]
	g, t := c.start.Graph(), c.step
	zero, index := gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, at.index)
	store := func(sd side, x, exact *Node, to coded) (*Node, coded) {
		exact = DynamicUpdateSlice(exact, Reshape(p.promptExact(x, c.start), append([]int{1}, dims(exact)[1:]...)...), []*Node{index, zero, zero, zero, zero})
		n := p.promptSlots(t)
		if n == 0 {
			return exact, to
		}
		tokens := alignRows(x, c.start, p.sinks, n) // [B, K, n, D]
		valid := Reshape(LessThan(Iota(g, shapes.Make(dtypes.Int32, p.shape.Batch, n), 1), BroadcastToDims(Reshape(c.promptCoded(t), p.shape.Batch, 1), p.shape.Batch, n)),
			1, p.shape.Batch, 1, n, 1)
		return exact, sd.write(to, sd.encode(Reshape(tokens, append([]int{1}, dims(tokens)...)...), valid), index, zero, zero)
	}
	s.exactKeys, s.key = store(seg.key, c.newKeys[layer], s.exactKeys, s.key)
	s.exactValues, s.value = store(seg.value, c.newValues[layer], s.exactValues, s.value)
}

// finishPrompt brings counters and indices up to date after a prompt of t slots.
func (c *quantizedCache) finishPrompt(t int) {
	p, g := c.plan, c.start.Graph()
	count := c.promptCoded(t)
	c.length = gx.Scalar(g, dtypes.Int32, t)
	c.next = gx.AddScalar(count, p.sinks)
	c.used = gx.MulScalar(Div(gx.AddScalar(count, p.unit-1), gx.Scalar(g, dtypes.Int32, p.unit)), p.unit)
	if n := p.promptSlots(t); n > 0 {
		b := p.shape.Batch
		slot := Iota(g, shapes.Make(dtypes.Int32, b, n), 1)
		tokens := Where(LessThan(slot, BroadcastToDims(Reshape(count, b, 1), b, n)), gx.AddScalar(slot, p.sinks), gx.Fill(g, slot.Shape(), -1))
		zero := gx.Scalar(g, dtypes.Int32, 0)
		c.codeIndex = DynamicUpdateSlice(c.codeIndex, tokens, []*Node{zero, zero})
	}
	c.exactIndex = p.promptIndex(c.start, c.next, t)
}

// promptCoded is how many tokens of each row are coded after a prompt of t slots, [B] int32: all of them under transformers' policy; else
// as many whole blocks as leave ResidualLength tokens exact, the same as if the prompt had come token by token.
func (c *quantizedCache) promptCoded(t int) *Node {
	p, g := c.plan, c.start.Graph()
	tokens := Sub(gx.Scalar(g, dtypes.Int32, t), c.start)
	if p.config.Backend != Blocks {
		return tokens
	}
	blocks := Div(gx.MaxScalar(gx.AddScalar(tokens, -p.sinks-p.config.ResidualLength), 0), gx.Scalar(g, dtypes.Int32, p.block))
	return gx.MulScalar(blocks, p.block)
}

// promptSlots is how many code slots a prompt of t slots can fill: promptCoded of a row without padding, in whole groups.
func (p *Plan) promptSlots(t int) int {
	if p.config.Backend != Blocks {
		return (t + p.unit - 1) / p.unit * p.unit
	}
	return max(0, t-p.sinks-p.config.ResidualLength) / p.block * p.block
}

func dims(x *Node) []int { return x.Shape().Dimensions }
