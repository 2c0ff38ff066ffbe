package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// quantizedCache holds old tokens as codes, recent ones and sinks exactly.
//
// Rows do not share a clock: token indices, groups and blocks are counted from each row's own first token, so that a row in a padded
// batch is coded as it would be alone. Index arrays say which token lies in which slot; a slot with index -1 is not seen.
type quantizedCache struct {
	plan *Plan

	length *Node // int32 []: slots filled so far, padding included
	start  *Node // int32 [B]: padding of each row
	next   *Node // int32 [B]: index of the oldest token that is neither sink nor coded
	used   *Node // int32 [B]: code slots in use

	codeIndex  *Node // int32 [B, C]: token in each code slot, -1: none
	exactIndex *Node // int32 [B, E]: token in each sink and window slot, -1: none

	segments []segmentState

	fresh              bool    // nothing was ever appended
	step               int     // t of the step under way, 0 between steps
	newKeys, newValues []*Node // of the step, per layer, [B, K, t, D] in the cache's dtype
	masks              *stepMasks
}

type segmentState struct {
	exactKeys, exactValues *Node // [L, B, K, E, D]
	key, value             coded
}

// newQuantizedCache takes the state apart in the order of [Plan.arrays].
func newQuantizedCache(p *Plan, nodes []*Node) *quantizedCache {
	c := &quantizedCache{plan: p}
	take := func() *Node {
		n := nodes[0]
		nodes = nodes[1:]
		return n
	}
	takeSide := func(s side) coded {
		x := coded{codes: take(), scales: take()}
		if s.code == Affine {
			x.zeros = take()
		}
		return x
	}
	c.length, c.start, c.next, c.used, c.codeIndex, c.exactIndex = take(), take(), take(), take(), take(), take()
	for _, seg := range p.segments {
		c.segments = append(c.segments, segmentState{exactKeys: take(), exactValues: take(), key: takeSide(seg.key), value: takeSide(seg.value)})
	}
	c.newKeys, c.newValues = make([]*Node, p.shape.Layers), make([]*Node, p.shape.Layers)
	return c
}

func (c *quantizedCache) Nodes() []*Node {
	nodes := []*Node{c.length, c.start, c.next, c.used, c.codeIndex, c.exactIndex}
	for _, s := range c.segments {
		nodes = append(nodes, s.exactKeys, s.exactValues)
		nodes = append(nodes, s.key.nodes()...)
		nodes = append(nodes, s.value.nodes()...)
	}
	return nodes
}

func (c *quantizedCache) Length() *Node { return c.length }

func (c *quantizedCache) Positions(t int) *Node { return positions(c.start, c.length, t) }

func (c *quantizedCache) Append(layer int, keys, values *Node) {
	c.step = checkAppend("quantized", c.plan.shape, c.step, layer, keys, values)
	c.newKeys[layer] = matchDType(keys, c.segments[0].exactKeys)
	c.newValues[layer] = matchDType(values, c.segments[0].exactValues)
	if c.fresh {
		c.storePrompt(layer)
		// Prefill attends to what came in, not to a copy in the cache's dtype.
		c.newKeys[layer], c.newValues[layer] = keys, values
	}
}

// Advance writes the step's tokens of all layers at once: until then the arrays are only read, so XLA can update them in place.
func (c *quantizedCache) Advance() {
	t, fresh := c.step, c.fresh
	c.step, c.masks, c.fresh = 0, nil, false
	if fresh {
		c.finishPrompt(t)
		return
	}
	var stacked []*Node // per segment: new keys, new values [L, B, K, t, D]
	for _, seg := range c.plan.segments {
		var keys, values []*Node
		for _, layer := range seg.layers {
			keys, values = append(keys, c.newKeys[layer]), append(values, c.newValues[layer])
		}
		stacked = append(stacked, Stack(keys, 0), Stack(values, 0))
	}
	if t == 1 {
		c.advanceToken(stacked)
		return
	}
	// A chunk enters token by token, so that it leaves the same cache as single steps would.
	g := c.length.Graph()
	state := append([]*Node{gx.Scalar(g, dtypes.Int32, 0)}, c.Nodes()...)
	state = append(state, stacked...)
	n := len(c.Nodes())
	state = gx.Loop(state,
		func(st []*Node) *Node { return LessThan(st[0], gx.Scalar(st[0].Graph(), dtypes.Int32, t)) },
		func(st []*Node) []*Node {
			i, inner, chunk := st[0], newQuantizedCache(c.plan, st[1:1+n]), st[1+n:]
			var token []*Node
			for _, x := range chunk {
				d := x.Shape().Dimensions
				zero := gx.Scalar(x.Graph(), dtypes.Int32, 0)
				token = append(token, DynamicSlice(x, []*Node{zero, zero, zero, i, zero}, []int{d[0], d[1], d[2], 1, d[4]}))
			}
			inner.advanceToken(token)
			return append(append([]*Node{gx.AddScalar(i, 1)}, inner.Nodes()...), chunk...)
		})
	c.replace(state[1 : 1+n])
}

// replace takes over a new state.
func (c *quantizedCache) replace(nodes []*Node) { *c = *newQuantizedCache(c.plan, nodes) }

// advanceToken adds one token a row to window and sinks: stacked holds, per segment, new keys and values [L, B, K, 1, D]. Then the window
// gives up what it must.
func (c *quantizedCache) advanceToken(stacked []*Node) {
	p := c.plan
	index := Sub(c.length, c.start) // of the new token, [B]
	slot := p.ringSlot(c.length)
	for i := range c.segments {
		s := &c.segments[i]
		s.exactKeys = p.appendExact(s.exactKeys, stacked[2*i], slot, index)
		s.exactValues = p.appendExact(s.exactValues, stacked[2*i+1], slot, index)
	}
	c.exactIndex = p.appendIndex(c.exactIndex, slot, index)
	c.length = gx.AddScalar(c.length, 1)
	c.flush()
}
