package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
)

// WithCapacity is the same plan for another capacity.
func (p *Plan) WithCapacity(capacity int) (*Plan, error) {
	s := p.shape
	s.Capacity = capacity
	return p.reshaped(s)
}

// reshaped is the same plan for another shape.
func (p *Plan) reshaped(s Shape) (*Plan, error) {
	q, err := New(p.config, s)
	if err != nil {
		return nil, err
	}
	q.form = p.form
	return q, nil
}

// Grow moves a state of this plan, in the order of [Cache.Nodes], into the larger arrays of another
// plan that differs in its capacity alone, and returns the new nodes.
func (p *Plan) Grow(to *Plan, nodes []*Node) []*Node {
	before, after := p.arrays(), to.arrays()
	same := p.shape
	same.Capacity = to.shape.Capacity
	if p.config != to.config || !same.Equal(to.shape) || len(before) != len(after) || len(nodes) != len(before) {
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
		out[i] = withEnd(n, a.tokens, after[i].shape.Dim(a.tokens), p.empty(a.role))
	}
	return out
}

// WithBatch is the same plan for another number of rows.
func (p *Plan) WithBatch(batch int) (*Plan, error) {
	s := p.shape
	s.Batch = batch
	return p.reshaped(s)
}

// TakeRows makes the state of another plan, which differs in its batch alone, out of rows of a
// state of this plan: row i of the result is row rows[i] (int32, one for each row of the other
// plan). It repeats a prefilled prompt over a batch, and drops rows that are done. nodes and result
// are in the order of [Cache.Nodes].
func (p *Plan) TakeRows(to *Plan, nodes []*Node, rows *Node) []*Node {
	same := p.shape
	same.Batch = to.shape.Batch
	if p.config != to.config || !same.Equal(to.shape) || len(nodes) != len(p.arrays()) {
		exceptions.Panicf("kvq.Plan.TakeRows: want a plan that differs in its batch alone, got %+v for %+v", to.shape, p.shape)
	}
	if rows.DType() != dtypes.Int32 || rows.Rank() != 1 || rows.Shape().Dim(0) != to.shape.Batch {
		exceptions.Panicf("kvq.Plan.TakeRows: rows %s, want int32 [%d]: a row of the old state for each row of the new", rows.Shape(), to.shape.Batch)
	}
	out := make([]*Node, len(nodes))
	for i, a := range p.arrays() {
		out[i] = nodes[i]
		switch axis := a.rows(); {
		case axis < 0:
		case a.role == roleExact && !p.config.Quantized():
			out[i] = takeRows(nodes[i], headRows(rows, p.shape), axis)
		default:
			out[i] = takeRows(nodes[i], rows, axis)
		}
	}
	return out
}
