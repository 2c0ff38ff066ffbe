package kvq

import (
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// WithCapacity is the same plan for another capacity.
func (p *Plan) WithCapacity(capacity int) (*Plan, error) {
	s := p.shape
	s.Capacity = capacity
	return New(p.config, s)
}

// Grow moves a state of this plan, in the order of [Cache.Nodes], into the larger arrays of another plan that differs in its capacity
// alone, and returns the new nodes.
func (p *Plan) Grow(to *Plan, nodes []*Node) []*Node {
	before, after := p.arrays(), to.arrays()
	if p.config != to.config || len(before) != len(after) || len(nodes) != len(before) {
		exceptions.Panicf("kvq.Plan.Grow: want a plan that differs in its capacity alone, got %+v for %+v", to.shape, p.shape)
	}
	out := make([]*Node, len(nodes))
	for i, n := range nodes {
		a := before[i]
		if a.tokens < 0 || a.shape.Equal(after[i].shape) {
			out[i] = n
			continue
		}
		more := after[i].shape.Dim(a.tokens) - a.shape.Dim(a.tokens)
		if more < 0 {
			exceptions.Panicf("kvq.Plan.Grow: %s has %d slots, the new plan %d: a cache only grows", a.name, a.shape.Dim(a.tokens), after[i].shape.Dim(a.tokens))
		}
		fill := 0
		if a.role == roleIndex {
			fill = -1
		}
		pads := make([]compute.PadAxis, a.shape.Rank())
		pads[a.tokens].End = more
		out[i] = Pad(n, gx.Scalar(n.Graph(), n.DType(), fill), pads...)
	}
	return out
}
