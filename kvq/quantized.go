package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// quantizedCache holds old tokens as codes, recent ones and sinks exactly.
//
// Rows do not share a clock: token indices, groups and blocks are counted from each row's own first
// token, so that a row in a padded batch is coded as it would be alone. Index arrays say which
// token lies in which slot; a slot with index -1 is not seen.
type quantizedCache struct {
	plan *Plan

	length *Node // int32 [], or [B] with rows of their own lengths: slots filled so far, padding included
	start  *Node // int32 [B]: padding of each row
	next   *Node // int32 [B]: index of the oldest token that is neither sink nor coded
	used   *Node // int32 [B]: code slots in use

	codeIndex  *Node // int32 [B, C]: token in each code slot, -1: none
	exactIndex *Node // int32 [B, E]: token in each sink and window slot, -1: none

	layers []layerState

	fresh              bool              // nothing was ever appended
	stored             []bool            // layers whose prompt is stored
	weighed            []bool            // layers for which weigh was called
	turns              []float32         // what turn was given; nil: it was not called
	keyed              []*Node           // what weighKeys was given, by layer; nil: it was not called
	step               int               // t of the step under way, 0 between steps
	counts             *Node             // how many of its columns are tokens, int32 or bool [B]; nil: all
	newKeys, newValues []*Node           // of the step, per layer, [B, K, t, D] in the cache's dtype
	asked              Masks             // of the step
	masks              map[int]stepMasks // by window
	form               Form              // of attention to codes in a function of one layer, see part
	formOf             dtypes.DType      // of queries that form was asked for; none elsewhere

	wholeLayers gx.Functions // see Through
	functions   gx.Functions // of parts of layers
}

type layerState struct {
	exactKeys, exactValues *Node // [B, K, E, D]
	key, value             codes.Blocks
	keyMetric, valueMetric *Node // [B, K, …] or [K, …] where rows share it, see numbers.PackFactor; nil without feedback
}

// newQuantizedCache takes the state apart in the order of [Plan.arrays].
func newQuantizedCache(p *Plan, nodes []*Node) *quantizedCache {
	c := &quantizedCache{plan: p}
	shared := c.shared()
	for i, x := range shared {
		*x = nodes[i]
	}
	nodes = nodes[len(shared):]
	for _, l := range p.layers {
		var s layerState
		s, nodes = l.take(nodes)
		c.layers = append(c.layers, s)
	}
	c.newKeys, c.newValues = make([]*Node, p.shape.Layers), make([]*Node, p.shape.Layers)
	c.stored, c.weighed, c.keyed = make([]bool, p.shape.Layers), make([]bool, p.shape.Layers), make([]*Node, p.shape.Layers)
	return c
}

// shared are the arrays of all layers together, in the order of [Plan.arrays].
func (c *quantizedCache) shared() []**Node {
	return []**Node{&c.length, &c.start, &c.next, &c.used, &c.codeIndex, &c.exactIndex}
}

func (c *quantizedCache) Nodes() []*Node {
	var nodes []*Node
	for _, x := range c.shared() {
		nodes = append(nodes, *x)
	}
	for _, s := range c.layers {
		nodes = append(nodes, s.nodes()...)
	}
	return nodes
}

func (s layerState) nodes() []*Node {
	nodes := append([]*Node{s.exactKeys, s.exactValues}, s.key.Nodes()...)
	nodes = append(nodes, s.value.Nodes()...)
	for _, metric := range []*Node{s.keyMetric, s.valueMetric} {
		if metric != nil {
			nodes = append(nodes, metric)
		}
	}
	return nodes
}

// take reads one layer off the front of a flattened state and returns the rest: the way back from
// nodes.
func (l layerPlan) take(nodes []*Node) (s layerState, rest []*Node) {
	s.exactKeys, s.exactValues = nodes[0], nodes[1]
	s.key, nodes = l.key.Take(nodes[2:])
	s.value, nodes = l.value.Take(nodes)
	if l.key.Feedback {
		s.keyMetric, nodes = nodes[0], nodes[1:]
	}
	if l.value.Feedback {
		s.valueMetric, nodes = nodes[0], nodes[1:]
	}
	return s, nodes
}

func (c *quantizedCache) Length() *Node { return c.length }

func (c *quantizedCache) Positions(t int) *Node {
	return positions(stepIndex(c.start, c.length, c.counts, t))
}

// appendTo writes the new tokens before anything reads the window in this step, and the first one
// of a step lets the window give up blocks before that. In this order every array is written first
// and read after, so that XLA updates all of them in place: a write that came after a read it does
// not depend on would cost a copy of the array.
func (c *quantizedCache) appendTo(layer int, keys, values *Node) {
	t := checkAppend("quantized", c.plan.shape, c.step, layer, keys, values)
	checkCross(c.plan.shape, c.fresh)
	c.begin(t)
	if c.fresh {
		c.newKeys[layer], c.newValues[layer] = keys, values
		if !c.plan.layers[layer].learns() { // else what it learns comes first
			c.storePrompt(layer)
		}
		return
	}
	c.newKeys[layer], c.newValues[layer] = numbers.NarrowTo(keys, c.plan.shape.DType), numbers.NarrowTo(values, c.plan.shape.DType)
	if c.step > 1 {
		return // a chunk is stored by Advance
	}
	c.storeToken(layer, c.newKeys[layer], c.newValues[layer])
}

// begin is what a step of t tokens starts with; it does nothing in a step that is under way.
func (c *quantizedCache) begin(t int) {
	first := c.step == 0
	c.step = t
	if first && t == 1 && !c.fresh {
		if !c.plan.flushedApart {
			c.flush()
		}
		c.exactIndex = c.plan.appendIndex(c.exactIndex, c.plan.ringSlot(c.length), c.newIndex(), c.counts)
	}
}

// newIndex is the index in its row of the token under way, [B] int32, -1 in a row that rests.
func (c *quantizedCache) newIndex() *Node {
	if c.counts == nil {
		return Sub(c.length, c.start)
	}
	return Reshape(stepIndex(c.start, c.length, c.counts, 1), c.plan.shape.Batch)
}

// tokenOf is the key of a function.
type tokenOf struct{}

// storeToken writes one token a row, [B, K, 1, D], into window and sinks of a layer.
func (c *quantizedCache) storeToken(layer int, key, value *Node) {
	s, slot := &c.layers[layer], c.plan.ringSlot(c.length)
	// A function, whose results are stored: otherwise XLA's CPU compiler writes the token into
	// several copies, one for each product.
	in := []*Node{s.exactKeys, s.exactValues, key, value, slot, c.newIndex()}
	if c.counts != nil {
		in = append(in, c.counts)
	}
	out := c.functions.Call(tokenOf{}, in, func(in []*Node) []*Node {
		var counts *Node
		if len(in) > 6 {
			counts = in[6]
		}
		exact := c.plan.appendExact([2]*Node{in[0], in[1]}, [2]*Node{in[2], in[3]}, in[4], in[5], counts)
		return exact[:]
	})
	s.exactKeys, s.exactValues = out[0], out[1]
}

func (c *quantizedCache) Advance() {
	t, fresh := c.step, c.fresh
	c.checkLearned()
	defer func() { c.step, c.counts, c.masks, c.asked, c.fresh = 0, nil, nil, Masks{}, false }()
	switch {
	case fresh:
		c.finishPrompt(t)
	case c.plan.shape.Attention.Cross: // nothing was appended
	case t > 1:
		c.storeChunk(t)
	default:
		c.length = grown(c.length, c.counts, 1)
	}
}

// storeChunk stores t tokens of all layers one by one, so that a chunk leaves the same cache as
// single steps would.
func (c *quantizedCache) storeChunk(t int) {
	captured := append(append([]*Node{}, c.newKeys...), c.newValues...)
	if c.counts != nil {
		captured = append(captured, countsOf(c.counts, t))
	}
	state := append([]*Node{gx.Scalar(c.length.Graph(), dtypes.Int32, 0)}, c.Nodes()...)
	state = gx.LoopOver(captured, state,
		func(st []*Node) *Node { return LessThan(st[0], gx.Scalar(st[0].Graph(), dtypes.Int32, t)) },
		func(chunk, st []*Node) []*Node {
			i, inner := st[0], newQuantizedCache(c.plan, st[1:])
			zero := gx.Scalar(i.Graph(), dtypes.Int32, 0)
			token := func(x *Node) *Node {
				d := dims(x)
				return gx.DynamicSlice(x, []*Node{zero, zero, i, zero}, []int{d[0], d[1], 1, d[3]})
			}
			layers := c.plan.shape.Layers
			if counts := chunk[2*layers:]; len(counts) > 0 {
				inner.counts = gx.GreaterOrEqualScalar(Add(counts[0], i), t) // the last columns are tokens
			}
			for layer := range layers {
				inner.appendTo(layer, token(chunk[layer]), token(chunk[layers+layer]))
			}
			inner.Advance()
			return append([]*Node{gx.AddScalar(i, 1)}, inner.Nodes()...)
		})
	c.replace(state[1:])
}

// replace takes over a new state in the middle of a step.
func (c *quantizedCache) replace(nodes []*Node) {
	n := newQuantizedCache(c.plan, nodes)
	n.step, n.counts, n.asked, n.newKeys, n.newValues = c.step, c.counts, c.asked, c.newKeys, c.newValues
	*c = *n
}
