package kvq

import (
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Layer is what one layer has of a cache in the step under way, taken out of it, so that a model can make a function of the layer that all
// layers of equal Kind call: [Cache.Layer].
type Layer struct {
	Kind  any     // comparable; the graphs of layers of equal kind are the same
	Nodes []*Node // what goes into the function

	within func(nodes []*Node) (Cache, func() []*Node)
	put    func(nodes []*Node)
}

// Within rebuilds the layer from its Nodes as parameters of a function: a cache to Append to and to Attend to as its layer 0, once each, and
// what the function returns of it then.
func (l Layer) Within(nodes []*Node) (cache Cache, results func() []*Node) { return l.within(nodes) }

// Put takes over what the function returned, in the place of Append and Attend.
func (l Layer) Put(results []*Node) { l.put(results) }

// layerKind tells layers of one cache and step apart.
type layerKind struct {
	plan  layerPlan
	fresh bool
}

func (c *fullCache) Layer(layer, t int) (Layer, bool) {
	c.step = t
	one := c.shape
	one.Layers = 1
	l := Layer{Kind: layerKind{fresh: c.fresh}, Nodes: []*Node{c.length, c.start}}
	if !c.fresh {
		l.Nodes = append(l.Nodes, c.stepMask(), c.keys[layer], c.values[layer])
	}
	arrays := shapes.Shape{}
	if c.fresh {
		arrays = c.keys[layer].Shape()
	}
	fresh := c.fresh
	l.within = func(nodes []*Node) (Cache, func() []*Node) {
		g := nodes[0].Graph()
		inner := &fullCache{shape: one, length: nodes[0], start: nodes[1], fresh: fresh, newKeys: make([]*Node, 1), newValues: make([]*Node, 1)}
		if fresh {
			inner.keys, inner.values = []*Node{gx.Zeros(g, arrays)}, []*Node{gx.Zeros(g, arrays)}
		} else {
			inner.mask, inner.keys, inner.values = nodes[2], nodes[3:4:4], nodes[4:5:5]
		}
		return inner, func() []*Node { return []*Node{inner.keys[0], inner.values[0]} }
	}
	l.put = func(nodes []*Node) { c.keys[layer], c.values[layer] = nodes[0], nodes[1] }
	return l, true
}

func (c *quantizedCache) Layer(layer, t int) (Layer, bool) {
	if t > 1 && !c.fresh {
		return Layer{}, false // Advance needs the tokens of all layers
	}
	c.begin(t)
	of := c.plan.layers[layer]
	one := *c.plan
	one.shape.Layers, one.layers = 1, []layerPlan{of}
	l := Layer{Kind: layerKind{of, c.fresh}, Nodes: []*Node{c.length, c.start, c.used}}
	if !c.fresh {
		m := c.stepMasks()
		l.Nodes = append(append(l.Nodes, m.codes, m.exact), c.layers[layer].nodes()...)
	}
	fresh := c.fresh
	l.within = func(nodes []*Node) (Cache, func() []*Node) {
		inner := &quantizedCache{plan: &one, length: nodes[0], start: nodes[1], used: nodes[2], fresh: fresh, step: t,
			newKeys: make([]*Node, 1), newValues: make([]*Node, 1)}
		if fresh {
			var arrays []*Node
			for _, a := range one.layerArrays(0) {
				arrays = append(arrays, gx.Zeros(nodes[0].Graph(), a.shape))
			}
			s, _ := of.take(arrays)
			inner.layers = []layerState{s}
		} else {
			inner.masks = &stepMasks{codes: nodes[3], exact: nodes[4]}
			s, _ := of.take(nodes[5:])
			inner.layers = []layerState{s}
		}
		return inner, func() []*Node { return inner.layers[0].nodes() }
	}
	l.put = func(nodes []*Node) { c.layers[layer], _ = of.take(nodes) }
	return l, true
}
