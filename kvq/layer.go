package kvq

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// oneLayer is a [LayerCache]: a layer of a cache by its number.
type oneLayer struct {
	cache interface {
		appendTo(layer int, keys, values *Node)
		attendTo(layer int, queries *Node) *Node
		weighKeys(layer int, keys func() *Node)
		turn(frequencies []float32)
		weigh(layer int, values func() *Node)
	}
	layout Layout
	layer  int
}

func (l oneLayer) Append(keys, values *Node) {
	l.cache.appendTo(l.layer, l.layout.swap(keys), l.layout.swap(values))
}

func (l oneLayer) Turn(frequencies []float32)  { l.cache.turn(frequencies) }
func (l oneLayer) WeighKeys(keys func() *Node) { l.cache.weighKeys(l.layer, keys) }

func (l oneLayer) Weigh(values func() *Node) { l.cache.weigh(l.layer, values) }

func (l oneLayer) Attend(queries *Node) *Node {
	return l.layout.swap(l.cache.attendTo(l.layer, l.layout.swap(queries)))
}

func (c *fullCache) Layer(layer int) LayerCache { return oneLayer{c, c.shape.Layout, layer} }
func (c *quantizedCache) Layer(layer int) LayerCache {
	return oneLayer{c, c.plan.shape.Layout, layer}
}

// part is one layer, taken out of a cache for a step, as the inputs and results of a function.
type part struct {
	kind  any     // comparable; layers of equal kind are the same inside
	nodes []*Node // what goes into the function

	// within makes a cache of one layer from parameters in the place of nodes. results are what the
	// function returns of it, once the layer is done.
	within func(nodes []*Node) (cache Cache, results func() []*Node)
	// put takes the results over.
	put func(results []*Node)
}

// through is [Cache.Through] with a layer that can be taken out of its cache.
//
// 16-bit activations come with 16-bit weights, and these stay in one graph: XLA's CPU compiler
// takes their conversion out of a loop of steps, which it cannot take out of a function.
func through(functions *gx.Functions, p part, x *Node, inputs []*Node, decoder Decoder) *Node {
	out := functions.Call(p.kind, slices.Concat([]*Node{x}, inputs, p.nodes), func(in []*Node) []*Node {
		x, inputs, nodes := in[0], in[1:1+len(inputs)], in[1+len(inputs):]
		cache, results := p.within(nodes)
		x = decoder(cache.Layer(0), x, inputs)
		return append([]*Node{x}, results()...)
	})
	p.put(out[1:])
	return out[0]
}

// mayBeFunction reports whether a layer may become a function: see through. Where functions are
// called in place, a layer stays in its cache, which has all that the attention kernel reads.
func mayBeFunction(x *Node) bool {
	return x.DType() == dtypes.Float32 && !gx.CallsInPlace(x.Graph())
}

func (c *fullCache) Through(layer int, x *Node, inputs []*Node, decoder Decoder) *Node {
	if !mayBeFunction(x) || c.shape.Attention.Cross {
		return decoder(c.Layer(layer), x, inputs)
	}
	return through(&c.wholeLayers, c.part(layer, dims(x)[1]), x, inputs, decoder)
}

func (c *quantizedCache) Through(layer int, x *Node, inputs []*Node, decoder Decoder) *Node {
	t := dims(x)[1]
	// Advance stores a chunk and needs the new tokens of all layers.
	if chunk := t > 1 && !c.fresh; chunk || !mayBeFunction(x) || c.plan.shape.Attention.Cross {
		return decoder(c.Layer(layer), x, inputs)
	}
	return through(&c.wholeLayers, c.part(layer, x), x, inputs, decoder)
}

// layerKind tells layers of one cache and step apart.
type layerKind struct {
	plan  layerPlan
	fresh bool
	masks string // see Masks.kinds

	// where masks are made inside: in a prompt, and for a kernel, which reads no masks
	window int
}

// part takes a layer out of a step of t tokens.
func (c *fullCache) part(layer, t int) part {
	c.step = t
	one := c.shape.layer(layer)
	kind := layerKind{fresh: c.fresh, masks: c.asked.kinds()}
	p := part{nodes: []*Node{c.length, c.start}}
	if c.fresh {
		kind.window = one.SlidingWindow
		p.nodes = append(p.nodes, c.asked.nodes()...)
	} else {
		p.nodes = append(append(p.nodes, c.stepSeen(layer).Nodes()...), c.keys[layer], c.values[layer])
	}
	p.kind = kind
	if c.counts != nil {
		p.nodes = append(p.nodes, c.counts)
	}
	arrays := shapes.Shape{}
	if c.fresh {
		arrays = c.keys[layer].Shape()
	}
	fresh, asked := c.fresh, c.asked
	p.within = func(nodes []*Node) (Cache, func() []*Node) {
		g := nodes[0].Graph()
		inner := &fullCache{shape: one, length: nodes[0], start: nodes[1], fresh: fresh, newKeys: make([]*Node, 1), newValues: make([]*Node, 1)}
		if fresh {
			inner.asked = asked.take(nodes[2:])
			inner.keys, inner.values = []*Node{gx.Zeros(g, arrays)}, []*Node{gx.Zeros(g, arrays)}
		} else {
			seen, arrays := one.scores().Take(nodes[2:])
			inner.seen = map[int]attend.Seen{one.SlidingWindow: seen}
			inner.keys, inner.values = arrays[0:1:1], arrays[1:2:2]
			if len(arrays) > 2 {
				inner.counts = arrays[2]
			}
		}
		return inner, func() []*Node { return []*Node{inner.keys[0], inner.values[0]} }
	}
	p.put = func(nodes []*Node) { c.keys[layer], c.values[layer] = nodes[0], nodes[1] }
	return p
}

// part takes a layer out of a step of x [B, t, ...]: one token, or the first. The form in which the
// layer attends to codes is asked for here, with queries of x's dtype, since it says what has to go
// into the function: the kernel reads indices, other forms masks.
func (c *quantizedCache) part(layer int, x *Node) part {
	t := dims(x)[1]
	c.begin(t)
	of := c.plan.layers[layer]
	one := c.plan.toChange()
	one.shape, one.layers = c.plan.shape.layer(layer), []layerPlan{of}
	kind := layerKind{plan: of, fresh: c.fresh, masks: c.asked.kinds()}
	p := part{nodes: []*Node{c.length, c.start, c.used}}
	form := attend.Auto // a prompt attends to itself
	if !c.fresh {
		form = c.attendForm(x.Graph(), layer, t, x.DType())
	}
	switch form {
	case attend.Auto:
		kind.window = one.shape.SlidingWindow
		p.nodes = append(p.nodes, c.asked.nodes()...)
	case attend.Kernel:
		kind.window = one.shape.SlidingWindow
		p.nodes = slices.Concat(p.nodes, []*Node{c.codeIndex, c.exactIndex}, c.layers[layer].nodes())
	default:
		m := c.stepMasks(layer)
		p.nodes = slices.Concat(p.nodes, m.codes.Nodes(), m.exact.Nodes(), c.layers[layer].nodes())
	}
	if c.counts != nil {
		p.nodes = append(p.nodes, c.counts)
	}
	p.kind = kind
	fresh, asked := c.fresh, c.asked
	p.within = func(nodes []*Node) (Cache, func() []*Node) {
		inner := &quantizedCache{plan: &one, length: nodes[0], start: nodes[1], used: nodes[2], fresh: fresh, step: t, form: form, formOf: x.DType(),
			newKeys: make([]*Node, 1), newValues: make([]*Node, 1), stored: make([]bool, 1), keyed: make([]*Node, 1), weighed: make([]bool, 1)}
		if fresh {
			var arrays []*Node
			for _, a := range one.layerArrays(0) {
				arrays = append(arrays, gx.Zeros(nodes[0].Graph(), a.shape))
			}
			inner.asked = asked.take(nodes[3:])
			s, _ := of.take(arrays)
			inner.layers = []layerState{s}
		} else {
			if nodes = nodes[3:]; form == attend.Kernel {
				inner.codeIndex, inner.exactIndex, nodes = nodes[0], nodes[1], nodes[2:]
			} else {
				scores, masks := one.shape.scores(), stepMasks{}
				masks.codes, nodes = scores.Take(nodes)
				masks.exact, nodes = scores.Take(nodes)
				inner.masks = map[int]stepMasks{one.shape.SlidingWindow: masks}
			}
			s, rest := of.take(nodes)
			inner.layers = []layerState{s}
			if len(rest) > 0 {
				inner.counts = rest[0]
			}
		}
		return inner, func() []*Node {
			inner.checkLearned()
			return inner.layers[0].nodes()
		}
	}
	p.put = func(nodes []*Node) {
		c.layers[layer], _ = of.take(nodes)
		c.stored[layer] = true
	}
	return p
}
