package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Crop forgets the newest n tokens. Codes that stay are not touched, except where the cut goes
// through a group along tokens: what is left of that group moves back into the window, see reopen.
func (c *quantizedCache) Crop(n *Node) {
	p, g := c.plan, c.length.Graph()
	c.length = Sub(c.length, n)
	b := p.shape.Batch
	tokens := Sub(c.length, c.start) // left in each row, [B]
	cut := func(index *Node) *Node {
		limit := gx.BroadcastToDims(Reshape(tokens, b, 1), dims(index)...)
		return Where(LessThan(index, limit), index, gx.Fill(g, index.Shape(), -1))
	}
	before := c.codeIndex
	c.codeIndex, c.exactIndex = cut(c.codeIndex), cut(c.exactIndex)
	c.next = Min(c.next, gx.MaxScalar(tokens, p.sinks))
	slot := gx.AddScalar(Iota(g, c.codeIndex.Shape(), 1), 1)
	last := gx.ReduceMax(Where(gx.GreaterOrEqualScalar(c.codeIndex, 0), slot, gx.Zeros(g, slot.Shape())), 1)
	c.used = gx.MulScalar(Div(gx.AddScalar(last, p.unit-1), gx.Scalar(g, dtypes.Int32, p.unit)), p.unit)
	if p.unit > 1 {
		c.reopen(before)
	}
}

func (c *quantizedCache) Reorder(rows *Node) {
	for i, x := range c.shared() {
		if axis := c.plan.arrays()[i].rows(); axis >= 0 {
			*x = takeRows(*x, rows, axis)
		}
	}
	for i := range c.layers {
		s := &c.layers[i]
		s.exactKeys, s.exactValues = takeRows(s.exactKeys, rows, 0), takeRows(s.exactValues, rows, 0)
		reorder := func(x *Node) *Node { return takeRows(x, rows, 1) }
		s.key, s.value = s.key.Each(reorder), s.value.Each(reorder)
		if s.keyMetric != nil && !c.plan.config.FeedbackKey.shared() {
			s.keyMetric = takeRows(s.keyMetric, rows, 0)
		}
	}
}
