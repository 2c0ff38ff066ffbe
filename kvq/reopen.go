package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// reopen takes the groups along tokens that a crop has cut, and moves what is left of them back
// into the window with the values that their codes stand for: they will be coded again together
// with the tokens that follow. A group cannot take new tokens, because its range is settled, and
// were it left as it is, its empty slots would be lost: rollbacks into codes, again and again,
// would use up the room of tokens still to come. The window has room, because a cut that reaches
// codes has emptied it.
//
// before is codeIndex before the cut: groups that a short prompt left partly filled, and that were
// not cut, stay codes.
func (c *quantizedCache) reopen(before *Node) {
	n := len(c.Nodes())
	state := append([]*Node{gx.Scalar(c.length.Graph(), dtypes.Int32, 0)}, c.Nodes()...)
	state = gx.LoopOver([]*Node{before}, state,
		func(st []*Node) *Node { return gx.LessThanScalar(st[0], c.plan.shape.Batch) },
		func(captured, st []*Node) []*Node {
			inner := newQuantizedCache(c.plan, st[1:])
			inner.reopenRow(st[0], captured[0])
			return append([]*Node{gx.AddScalar(st[0], 1)}, inner.Nodes()...)
		})
	c.replace(state[1 : 1+n])
}

// reopenRow is reopen for one row, an int32 scalar.
func (c *quantizedCache) reopenRow(row, before *Node) {
	p, g := c.plan, row.Graph()
	zero, w := gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, p.windowSlots)
	of := func(x *Node) *Node { return Reshape(gx.DynamicSlice(x, []*Node{row}, []int{1})) }
	first := gx.MaxScalar(gx.AddScalar(of(c.used), -p.unit), 0) // slot of the last group in use
	group := func(index *Node) *Node {
		return Reshape(gx.DynamicSlice(index, []*Node{row, first}, []int{1, p.unit}), p.unit)
	}
	filled := func(index *Node) *Node {
		return gx.ReduceSum(ConvertDType(gx.GreaterOrEqualScalar(index, 0), dtypes.Int32), 0)
	}
	left := filled(group(c.codeIndex))
	cut := And(LessThan(left, filled(group(before))), gx.GreaterThanScalar(left, 0))
	oldest := Reshape(Slice(group(c.codeIndex), AxisRange(0, 1)))

	// Which token comes to which slot of the ring: token oldest + age, age < left.
	slot := Iota(g, shapes.Make(dtypes.Int32, p.windowSlots), 0)
	age := Rem(Sub(Add(slot, gx.MulScalar(w, p.unit+1)), Rem(Add(of(c.start), oldest), w)), w)
	back := And(LessThan(age, left), cut)
	put := func(exact, tokens *Node) *Node { // [B, K, E, D], [1, K, U, D]
		d := dims(exact)
		at := []*Node{row, zero, gx.Scalar(g, dtypes.Int32, p.sinks), zero}
		size := []int{1, d[1], p.windowSlots, d[3]}
		picked := Gather(TransposeAllAxes(Reshape(tokens, d[1], p.unit, d[3]), 1, 0, 2), Reshape(gx.MinScalar(age, p.unit-1), p.windowSlots, 1))
		picked = Reshape(TransposeAllAxes(picked, 1, 0, 2), size...)
		mask := gx.BroadcastToDims(Reshape(back, 1, 1, p.windowSlots, 1), size...)
		return DynamicUpdateSlice(exact, Where(mask, picked, gx.DynamicSlice(exact, at, size)), at)
	}
	values := func(f codes.Format, from codes.Blocks) *Node {
		x := f.Decode(f.Read(from, p.unit/codes.BlockTokens, Div(first, gx.Scalar(g, dtypes.Int32, codes.BlockTokens)), row))
		if f.Rotate {
			x = Rotate(x)
		}
		return numbers.NarrowTo(x, p.shape.DType)
	}
	for i, l := range p.layers {
		s := &c.layers[i]
		s.exactKeys, s.exactValues = put(s.exactKeys, values(l.key, s.key)), put(s.exactValues, values(l.value, s.value))
	}

	ringAt := []*Node{row, gx.Scalar(g, dtypes.Int32, p.sinks)}
	ring := Reshape(gx.DynamicSlice(c.exactIndex, ringAt, []int{1, p.windowSlots}), p.windowSlots)
	c.exactIndex = DynamicUpdateSlice(c.exactIndex, Reshape(Where(back, Add(age, oldest), ring), 1, p.windowSlots), ringAt)
	gone := Where(gx.BroadcastToDims(cut, p.unit), gx.Fill(g, group(before).Shape(), -1), group(c.codeIndex))
	c.codeIndex = DynamicUpdateSlice(c.codeIndex, Reshape(gone, 1, p.unit), []*Node{row, first})
	here := And(Equal(Iota(g, c.next.Shape(), 0), row), gx.BroadcastToDims(cut, p.shape.Batch))
	c.next = Where(here, gx.BroadcastToDims(oldest, p.shape.Batch), c.next)
	c.used = Where(here, gx.BroadcastToDims(first, p.shape.Batch), c.used)
}
