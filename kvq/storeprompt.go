package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// storePrompt codes the prompt of one layer, [B, K, T, D] in newKeys and newValues, as far as the
// policy wants it coded, and fills sinks and window. Layer by layer, so that no more than one
// layer's keys and values are alive in full precision.
func (c *quantizedCache) storePrompt(layer int) {
	p := c.plan
	l, s := p.layers[layer], &c.layers[layer]
	g, t := c.start.Graph(), c.step
	// Fused attention has keys and values written with rows at the front: the kernels read them
	// there, and no copy is made for them. (XLA makes one of the two gathers.)
	keys, values := c.newKeys[layer].Shape(), c.newValues[layer].Shape()
	fused := p.shape.fuses(g.Backend(), gx.Sharing(g), layer, c.asked.any(), keys, keys, values)
	store := func(f codes.Format, x *Node, to codes.Blocks, metric *Node) (*Node, codes.Blocks) {
		x = numbers.NarrowTo(x, p.shape.DType)
		exact := p.promptExact(x, c.start)
		n := p.policy.promptSlots(t)
		if n == 0 {
			return exact, to
		}
		b := p.shape.Batch
		valid := LessThan(Iota(g, shapes.Make(dtypes.Int32, b, n), 1), gx.BroadcastToDims(Reshape(c.promptCoded(t), b, 1), b, n))
		factor := factorOf(metric, p.shape.Batch)
		read, first := x, gx.AddScalar(c.start, p.sinks)
		if blocks, ok := cpukernel.Encode(f, x, first, n, valid, factor); ok {
			zero := gx.Scalar(g, dtypes.Int32, 0)
			return exact, f.Write(to, blocks, zero, zero)
		}
		if fused {
			read, first = Transpose(attend.ToFront(x, c.start), 1, 2), gx.Fill(g, first.Shape(), float64(p.sinks))
		}
		if blocks, ok := f.EncodeRows(read, first, n, p.codeSlots, valid, factor); ok {
			return exact, blocks
		}
		tokens := alignRows(x, c.start, p.sinks, n) // [B, K, n, D]
		return exact, storeCodes(f, to, tokens, valid, factor, p.block)
	}
	s.exactKeys, s.key = store(l.key, c.newKeys[layer], s.key, s.keyMetric)
	s.exactValues, s.value = store(l.value, c.newValues[layer], s.value, s.valueMetric)
	c.stored[layer] = true
}

// codeFirst is out, a layer's attention of a prompt, which on a GPU is not ready before the layer
// is coded. XLA would put the coding of all layers into one piece of work at the end, as it reads
// the same small arrays (masks, shifts): keys and values of all layers would be alive until then.
func (c *quantizedCache) codeFirst(layer int, out *Node) *Node {
	if !gx.OnGPU(out.Graph()) {
		return out
	}
	nodes := OptimizationBarriers(append([]*Node{out}, c.layers[layer].nodes()...)...)
	c.layers[layer], _ = c.plan.layers[layer].take(nodes[1:])
	return nodes[0]
}

// finishPrompt brings counters and indices up to date after a prompt of t slots.
func (c *quantizedCache) finishPrompt(t int) {
	p, g := c.plan, c.start.Graph()
	count := c.promptCoded(t)
	c.length = gx.Fill(g, c.length.Shape(), float64(t))
	c.next = gx.AddScalar(count, p.sinks)
	c.used = gx.MulScalar(Div(gx.AddScalar(count, p.unit-1), gx.Scalar(g, dtypes.Int32, p.unit)), p.unit)
	if n := p.policy.promptSlots(t); n > 0 {
		b := p.shape.Batch
		slot := Iota(g, shapes.Make(dtypes.Int32, b, n), 1)
		tokens := Where(LessThan(slot, gx.BroadcastToDims(Reshape(count, b, 1), b, n)), gx.AddScalar(slot, p.sinks), gx.Fill(g, slot.Shape(), -1))
		zero := gx.Scalar(g, dtypes.Int32, 0)
		c.codeIndex = DynamicUpdateSlice(c.codeIndex, tokens, []*Node{zero, zero})
	}
	c.exactIndex = p.promptIndex(c.start, c.next, t)
}

// promptCoded is how many tokens of each row are coded after a prompt of t slots, [B] int32.
func (c *quantizedCache) promptCoded(t int) *Node {
	g := c.start.Graph()
	// a first chunk may be all padding
	tokens := gx.MaxScalar(Sub(gx.Scalar(g, dtypes.Int32, t), c.start), 0)
	return c.plan.policy.ofPrompt(tokens)
}

// A quantizer that searches tries many ranges at once, and XLA stores some of what it makes for
// each: several arrays, each of so many times the prompt's keys. So a prompt is coded in pieces
// then, as many as keep such an array at searchShare times the keys. What has fewer than
// searchAtOnce numbers goes in one piece: another loop to compile would cost more.
const (
	searchShare  = 2
	searchAtOnce = 1 << 20
)

// storeCodes codes tokens [B, K, n, D] and writes them to the front of to; n, valid [B, n] and
// factor as in [codes.Format.EncodeFed], whole multiples of unit.
func storeCodes(f codes.Format, to codes.Blocks, tokens, valid, factor *Node, unit int) codes.Blocks {
	g, d := tokens.Graph(), dims(tokens)
	zero := func() *Node { return gx.Scalar(g, dtypes.Int32, 0) }
	piece := promptPiece(f.Spec.Candidates(g, f.Group), d, unit)
	if piece == d[2] {
		return f.Write(to, f.EncodeFed(tokens, valid, factor), zero(), zero())
	}
	n := len(to.Nodes())
	captured := []*Node{tokens, valid}
	if factor != nil {
		captured = append(captured, factor)
	}
	state := gx.LoopOver(captured, append(to.Nodes(), zero()),
		func(st []*Node) *Node { return gx.LessThanScalar(st[n], d[2]) },
		func(captured, st []*Node) []*Node {
			to, _ := f.Take(st[:n])
			from, tokens, valid := st[n], captured[0], captured[1]
			var factor *Node
			if len(captured) > 2 {
				factor = captured[2]
			}
			// The last piece is shifted back so that it is whole: some tokens get the same codes
			// twice.
			first := gx.MinScalar(from, d[2]-piece)
			x := gx.DynamicSlice(tokens, []*Node{zero(), zero(), first, zero()}, []int{d[0], d[1], piece, d[3]})
			v := gx.DynamicSlice(valid, []*Node{zero(), first}, []int{d[0], piece})
			block := Div(first, gx.Scalar(g, dtypes.Int32, codes.BlockTokens))
			to = f.Write(to, f.EncodeFed(x, v, factor), block, zero())
			return append(to.Nodes(), gx.AddScalar(from, piece))
		})
	to, _ = f.Take(state[:n])
	return to
}

// promptPiece is how many tokens of [B, K, n, D] are coded at once by a quantizer with so many
// candidates.
func promptPiece(candidates int, d []int, unit int) int {
	if candidates <= searchShare || candidates*d[0]*d[1]*d[2]*d[3] <= searchAtOnce {
		return d[2]
	}
	units := (d[2]*searchShare/candidates + unit - 1) / unit
	return min(units*unit, d[2])
}
