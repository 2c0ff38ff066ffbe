package kvq

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// mostFlushSlots bounds what an iteration of a flush works on, for large models on a GPU: all
// layers are coded at once, in float32.
const mostFlushSlots = 128

// flush moves the oldest tokens from the window to codes, row by row and block by block, as far as
// the policy wants it.
//
// It is a While that mostly runs zero times. An iteration is some hundred small operations on a
// CPU, so it takes the whole window of a row where it can. Rows of a batch reach the threshold at
// their own steps where blocks have to start at the row's own token (per-channel groups), all at
// the same step under transformers' policy. Each token is coded here, once, and its codes are never
// made anew.
func (c *quantizedCache) flush() {
	n := len(c.Nodes())
	state := gx.Loop(append(c.Nodes(), c.flushTarget()),
		func(st []*Node) *Node {
			next, target := newQuantizedCache(c.plan, st[:n]).next, st[n]
			return gx.GreaterThanScalar(gx.ReduceMax(Sub(target, next)), 0)
		},
		func(st []*Node) []*Node {
			inner := newQuantizedCache(c.plan, st[:n])
			inner.flushBlock(st[n])
			return append(inner.Nodes(), st[n])
		})
	c.replace(state[:n])
}

// waiting is how many tokens of each row are neither sinks nor coded, [B] int32; below 0 while only
// sinks are filled.
func (c *quantizedCache) waiting() *Node { return Sub(Sub(c.length, c.start), c.next) }

// flushTarget is the index of the first token of each row that stays in the window, [B] int32.
func (c *quantizedCache) flushTarget() *Node {
	p := c.plan
	waiting := c.waiting()
	give := p.policy.flushed(waiting)
	full := gx.GreaterOrEqualScalar(waiting, p.policy.threshold())
	if c.counts != nil { // a row that rests keeps what it has
		full = And(full, gx.GreaterThanScalar(countsOf(c.counts, 1), 0))
	}
	return Add(c.next, Where(full, give, gx.ZerosLike(give)))
}

// flushBlock codes the oldest tokens of the row that is furthest from its target [B]: as many as
// there are, or as there is room for in p.flushSlots code slots from the block begun before on.
func (c *quantizedCache) flushBlock(target *Node) {
	p, g := c.plan, c.length.Graph()
	row := gx.ArgMax(Sub(target, c.next), 0)
	of := func(x *Node) *Node { return Reshape(gx.DynamicSlice(x, []*Node{row}, []int{1})) }
	next, used := of(c.next), of(c.used)
	// Slots from the first block on: those before filled hold older tokens (only where no group
	// runs along tokens), then come new ones. At the array's end they begin with a block before.
	first := Sub(used, Rem(used, gx.Scalar(g, dtypes.Int32, p.block)))
	if p.flushSlots > p.block {
		first = gx.MinScalar(first, p.codeSlots-p.flushSlots)
	}
	filled := Sub(used, first)
	count := Min(Sub(of(target), next), Sub(gx.Scalar(g, dtypes.Int32, p.flushSlots), filled))
	slot := Iota(g, shapes.Make(dtypes.Int32, p.flushSlots), 0)
	fresh := And(GreaterOrEqual(slot, filled), LessThan(slot, Add(filled, count)))
	block := Div(first, gx.Scalar(g, dtypes.Int32, codes.BlockTokens))

	// Token next is to come to slot filled.
	w := gx.Scalar(g, dtypes.Int32, p.windowSlots)
	offset := Rem(Add(Sub(Add(of(c.start), next), filled), gx.Scalar(g, dtypes.Int32, p.windowSlots*p.flushSlots)), w)
	c.storeBlocks(blockPlace{row, block, offset, fresh})
	index := Add(Sub(slot, filled), next)
	old := Reshape(gx.DynamicSlice(c.codeIndex, []*Node{row, first}, []int{1, p.flushSlots}), p.flushSlots)
	c.codeIndex = DynamicUpdateSlice(c.codeIndex, Reshape(Where(fresh, index, old), 1, p.flushSlots), []*Node{row, first})

	here := Equal(Iota(g, c.next.Shape(), 0), row)
	c.next = Where(here, Add(c.next, count), c.next)
	// The rest of a unit stays empty where groups run along tokens.
	taken := gx.MulScalar(Div(gx.AddScalar(count, p.unit-1), gx.Scalar(g, dtypes.Int32, p.unit)), p.unit)
	c.used = Where(here, Add(c.used, taken), c.used)
	c.exactIndex = p.forgetCoded(c.exactIndex, c.next)
}

// blockPlace is the blocks of one row that tokens move to, p.flushSlots slots.
type blockPlace struct {
	row, block *Node // int32 scalars; the first block
	offset     *Node // int32 scalar: where in the ring the token for slot 0 lies
	fresh      *Node // bool [p.flushSlots]: the slots that get a token
}

// storeBlocks codes tokens of the window of all layers into blocks of each. Layers that are coded
// alike are coded as if they were rows of one batch, since a quantizer for each would be most of
// what XLA has to compile.
func (c *quantizedCache) storeBlocks(b blockPlace) {
	alike := map[codes.Format][]codedSide{}
	var order []codes.Format
	add := func(f codes.Format, exact *Node, to *codes.Blocks, metric *Node) {
		if alike[f] == nil {
			order = append(order, f)
		}
		alike[f] = append(alike[f], codedSide{exact, to, metric})
	}
	for i, l := range c.plan.layers {
		s := &c.layers[i]
		add(l.key, s.exactKeys, &s.key, s.keyMetric)
		add(l.value, s.exactValues, &s.value, s.valueMetric)
	}
	for _, f := range order {
		c.plan.storeBlock(f, alike[f], b)
	}
}

// codedSide is the keys or the values of a layer: the window [B, K, E, D], and where its tokens go.
type codedSide struct {
	exact  *Node
	to     *codes.Blocks
	metric *Node // nil without feedback
}

// storeBlock is storeBlocks for layers that are coded alike.
func (p *Plan) storeBlock(f codes.Format, layers []codedSide, b blockPlace) {
	tokens, olds := p.blockOf(f, layers, b)
	valid := gx.BroadcastToDims(Reshape(b.fresh, 1, p.flushSlots), dims(tokens)[0], p.flushSlots)
	blocks := encode(f, tokens, valid, factorsOf(layers, b))
	if p.unit == 1 {
		arrays := blocks.Nodes()
		for i := range arrays {
			var parts []*Node
			for j := i; j < len(olds); j += len(arrays) {
				parts = append(parts, olds[j])
			}
			arrays[i] = concat(parts, 1)
		}
		old, _ := f.Take(arrays)
		blocks = f.Merge(blocks, old, b.fresh)
	}
	writeBlocks(f, layers, blocks, b)
}

// blockOf takes the tokens for p.flushSlots slots from the windows of layers, as if these were
// rows: [layers, K, p.flushSlots, D]. olds are the arrays of each layer that hold older tokens of
// these slots, where groups do not run along tokens.
func (p *Plan) blockOf(f codes.Format, layers []codedSide, b blockPlace) (tokens *Node, olds []*Node) {
	g := b.row.Graph()
	zero := gx.Scalar(g, dtypes.Int32, 0)
	// The barrier ties the windows to where the block begins: otherwise XLA sees that they are the
	// same in all iterations, and copies all of them before the loop, in every step.
	exact := []*Node{b.offset}
	for _, l := range layers {
		exact = append(exact, l.exact)
	}
	exact = OptimizationBarriers(exact...)
	var rings []*Node
	for i, l := range layers {
		window := exact[1+i]
		d := dims(window)
		at := []*Node{b.row, zero, gx.Scalar(g, dtypes.Int32, p.sinks), zero}
		rings = append(rings, gx.DynamicSlice(window, at, []int{1, d[1], p.windowSlots, d[3]}))
		if p.unit == 1 {
			olds = append(olds, f.Read(*l.to, p.flushSlots/codes.BlockTokens, b.block, b.row).Nodes()...)
		}
	}
	ring := concat(rings, 0)
	d := dims(ring)
	if gx.OnGPU(g) {
		// What makes codes may want another order of axes than windows have. XLA's GPU compiler
		// would turn whole windows around for it, of all rows; it does not look through a flat
		// array.
		ring = Reshape(OptimizationBarrier(Reshape(ring, -1)), d...)
	}
	// Copies of the ring in a row: the tokens lie in one piece, wherever they start.
	copies := make([]*Node, 1+(p.flushSlots+p.windowSlots-1)/p.windowSlots)
	for i := range copies {
		copies[i] = ring
	}
	tokens = gx.DynamicSlice(concat(copies, 2), []*Node{zero, zero, b.offset, zero}, []int{d[0], d[1], p.flushSlots, d[3]})
	return tokens, olds
}

// factorsOf are the factors of a row in layers that are coded alike, [layers, K, D, D] float32; nil
// without feedback.
func factorsOf(layers []codedSide, b blockPlace) *Node {
	var own []*Node
	for _, l := range layers {
		if l.metric == nil {
			return nil
		}
		metric, zero := l.metric, gx.Scalar(b.row.Graph(), dtypes.Int32, 0)
		if d := dims(metric); len(d) == 4 {
			metric = gx.DynamicSlice(metric, []*Node{b.row, zero, zero, zero}, []int{1, d[1], d[2], d[3]})
		} else {
			metric = Reshape(metric, 1, d[0], d[1], d[2])
		}
		own = append(own, metric)
	}
	return factorOf(concat(own, 0), len(own))
}

// writeBlocks writes the blocks of layers, which lie side by side as rows, to their places.
func writeBlocks(f codes.Format, layers []codedSide, blocks codes.Blocks, b blockPlace) {
	// The place of a layer in blocks goes from call to call, counted from a number that XLA cannot
	// know: as a constant it would make the loops of each layer others to compile.
	var functions gx.Functions
	place := gx.MinScalar(b.row, 0)
	for _, l := range layers {
		out := functions.Call(f, slices.Concat([]*Node{place, b.block, b.row}, blocks.Nodes(), l.to.Nodes()), func(in []*Node) []*Node {
			place, block, row := in[0], in[1], in[2]
			blocks, rest := f.Take(in[3:])
			to, _ := f.Take(rest)
			own := blocks.Each(func(x *Node) *Node {
				start, size := make([]*Node, x.Rank()), slices.Clone(dims(x))
				for i := range start {
					start[i] = gx.Scalar(x.Graph(), dtypes.Int32, 0)
				}
				start[1], size[1] = place, 1
				return gx.DynamicSlice(x, start, size)
			})
			return append([]*Node{gx.AddScalar(place, 1)}, f.Write(to, own, block, row).Nodes()...)
		})
		place = out[0]
		*l.to, _ = f.Take(out[1:])
	}
}

// concat is Concatenate that leaves a single part alone.
func concat(parts []*Node, axis int) *Node {
	if len(parts) == 1 {
		return parts[0]
	}
	return Concatenate(parts, axis)
}

// forgetCoded takes tokens before next [B] out of the window's index; sinks stay.
func (p *Plan) forgetCoded(exactIndex, next *Node) *Node {
	g, b, e := exactIndex.Graph(), exactIndex.Shape().Dim(0), exactIndex.Shape().Dim(1)
	inRing := gx.GreaterOrEqualScalar(Iota(g, exactIndex.Shape(), 1), p.sinks)
	old := LessThan(exactIndex, gx.BroadcastToDims(Reshape(next, b, 1), b, e))
	return Where(And(inRing, old), gx.Fill(g, exactIndex.Shape(), -1), exactIndex)
}

func dims(x *Node) []int { return x.Shape().Dimensions }
