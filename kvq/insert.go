package kvq

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Rows are put in the place of others one by one, in a While that runs once for each of them: the
// arrays of the running cache are written in place, and a batch of any size is as much to compile.

func (c *fullCache) Reset(rows *Node) {
	c.replace(resetRows(&Plan{shape: c.shape}, c.step, c.Nodes(), rows))
}

func (c *quantizedCache) Reset(rows *Node) {
	c.replace(resetRows(c.plan, c.step, c.Nodes(), rows))
}

func (c *fullCache) Insert(rows *Node, from Cache) {
	other, ok := from.(*fullCache)
	if !ok {
		exceptions.Panicf("kvq.Insert: want rows of a full-precision cache, got those of a quantized one")
	}
	c.replace(insertRows(&Plan{shape: c.shape}, &Plan{shape: other.shape}, max(c.step, other.step), c.Nodes(), other.Nodes(), rows))
}

func (c *quantizedCache) Insert(rows *Node, from Cache) {
	other, ok := from.(*quantizedCache)
	if !ok {
		exceptions.Panicf("kvq.Insert: want rows of a quantized cache, got those of a full-precision one")
	}
	c.replace(insertRows(c.plan, other.plan, max(c.step, other.step), c.Nodes(), other.Nodes(), rows))
}

// replace takes over a new state between steps.
func (c *fullCache) replace(nodes []*Node) {
	n := newFullCache(c.shape, nodes)
	*c = *n
}

// resetRows empties the rows of a state of plan p where rows, bool [B], is true. Numbers are
// cleared too: what is not seen has weight 0, and 0 times an infinity is not.
func resetRows(p *Plan, step int, nodes []*Node, rows *Node) []*Node {
	checkOwnLengths("Reset", p.shape)
	checkBetweenSteps("Reset", step)
	if rows.DType() != dtypes.Bool || rows.Rank() != 1 || dims(rows)[0] != p.shape.Batch {
		exceptions.Panicf("kvq.Reset: rows %s, want bool [%d]: the rows to empty", rows.Shape(), p.shape.Batch)
	}
	arrays := p.arrays()
	return forRows(rows, nil, nodes, func(row *Node, _, nodes []*Node) []*Node {
		out := make([]*Node, len(nodes))
		for i, a := range arrays {
			view := a.byRow(p.shape)
			if view.rows < 0 {
				out[i] = nodes[i]
				continue
			}
			shape := nodes[i].Shape().Clone()
			shape.Dimensions = slices.Clone(view.dims)
			shape.Dimensions[view.rows] = 1
			out[i] = view.put(nodes[i], gx.Fill(row.Graph(), shape, p.empty(a.role)), row)
		}
		return out
	})
}

// insertRows puts the rows of a state of plan from in the places rows, int32 [n], of a state of
// plan p.
func insertRows(p, from *Plan, step int, nodes, more []*Node, rows *Node) []*Node {
	checkOwnLengths("Insert", p.shape)
	checkBetweenSteps("Insert", step)
	same := from.shape
	same.Batch, same.Capacity, same.OwnLengths = p.shape.Batch, p.shape.Capacity, p.shape.OwnLengths
	if from.config != p.config || !same.Equal(p.shape) || from.shape.Capacity > p.shape.Capacity {
		exceptions.Panicf("kvq.Insert: want rows of a plan that differs in Batch, OwnLengths and a smaller Capacity at most, got %s %+v for %s %+v",
			from.config, from.shape, p.config, p.shape)
	}
	n := from.shape.Batch
	if rows.DType() != dtypes.Int32 || rows.Rank() != 1 || dims(rows)[0] != n {
		exceptions.Panicf("kvq.Insert: rows %s, want int32 [%d]: a place for each row of the other cache", rows.Shape(), n)
	}
	if !from.shape.OwnLengths {
		more = slices.Clone(more)
		more[0] = gx.BroadcastToDims(more[0], n)
		own := from.toChange()
		own.shape.OwnLengths = true
		from = &own
	}
	taken := And(gx.GreaterOrEqualScalar(rows, 0), gx.LessThanScalar(rows, p.shape.Batch))
	return forRows(taken, append([]*Node{rows}, more...), nodes, func(i *Node, captured, nodes []*Node) []*Node {
		row := Reshape(gx.DynamicSlice(captured[0], []*Node{i}, []int{1}))
		moved := p.movedRow(from, captured[1:], i)
		out := make([]*Node, len(nodes))
		for j, a := range p.arrays() {
			out[j] = a.byRow(p.shape).put(nodes[j], moved[j], row)
		}
		return out
	})
}

// movedRow takes row i of a state of plan from, without its padding, in the shapes of plan p: for
// each array one row of [array.byRow].
func (p *Plan) movedRow(from *Plan, nodes []*Node, i *Node) []*Node {
	views := make([]rowView, len(nodes))
	for j, a := range from.arrays() {
		views[j] = a.byRow(from.shape)
	}
	length, start := views[0].take(nodes[0], i), views[1].take(nodes[1], i) // [1]
	padding := Reshape(start)
	out := make([]*Node, len(nodes))
	for j, a := range p.arrays() {
		x, to := views[j].take(nodes[j], i), a.byRow(p.shape)
		switch {
		case a.role == roleLength:
			x = gx.MaxScalar(Sub(length, start), 0)
		case a.role == roleStart:
			x = gx.ZerosLike(start)
		case a.tokens >= 0:
			if !p.config.Quantized() {
				x = withEnd(x, to.tokens, dims(x)[to.tokens]+to.dims[to.tokens], 0)
				x = cutAxis(x, padding, to.tokens, to.dims[to.tokens])
				break
			}
			x = withEnd(x, to.tokens, to.dims[to.tokens], p.empty(a.role))
		case a.role == roleExact:
			x = p.withoutPadding(x, padding, 2)
		case a.role == roleIndex:
			x = p.withoutPadding(x, padding, 1)
		}
		out[j] = x
	}
	return out
}

// withoutPadding moves the tokens of one row's window to where they lie in a row that begins with
// less padding, by an int32 scalar: the ring starts so many slots later. axis is that of the sinks
// and the window.
func (p *Plan) withoutPadding(x, padding *Node, axis int) *Node {
	ring := cutAxis(x, gx.Scalar(x.Graph(), dtypes.Int32, p.sinks), axis, p.windowSlots)
	first := Rem(padding, gx.Scalar(x.Graph(), dtypes.Int32, p.windowSlots))
	ring = cutAxis(Concatenate([]*Node{ring, ring}, axis), first, axis, p.windowSlots)
	if p.sinks == 0 {
		return ring
	}
	return Concatenate([]*Node{cutAxis(x, gx.Scalar(x.Graph(), dtypes.Int32, 0), axis, p.sinks), ring}, axis)
}

// cutAxis takes n places of an axis from first (int32 scalar) on.
func cutAxis(x, first *Node, axis, n int) *Node {
	at := make([]*Node, x.Rank())
	for i := range at {
		at[i] = gx.Scalar(x.Graph(), dtypes.Int32, 0)
	}
	at[axis] = first
	size := slices.Clone(dims(x))
	size[axis] = n
	return gx.DynamicSlice(x, at, size)
}

// withEnd makes an axis n long by adding fill.
func withEnd(x *Node, axis, n, fill int) *Node {
	if dims(x)[axis] == n {
		return x
	}
	pads := make([]compute.PadAxis, x.Rank())
	pads[axis].End = n - dims(x)[axis]
	return Pad(x, gx.Scalar(x.Graph(), x.DType(), fill), pads...)
}

// forRows calls body for each place of mask, bool [n], that is true: an int32 scalar, values that
// stay, and the state, which it returns changed.
func forRows(mask *Node, captured, state []*Node, body func(i *Node, captured, state []*Node) []*Node) []*Node {
	waiting := ConvertDType(mask, dtypes.Int32)
	out := gx.LoopOver(captured, append([]*Node{waiting}, state...),
		func(st []*Node) *Node { return gx.GreaterThanScalar(gx.ReduceMax(st[0]), 0) },
		func(captured, st []*Node) []*Node {
			i := gx.ArgMax(st[0], 0)
			left := Where(Equal(Iota(i.Graph(), st[0].Shape(), 0), i), gx.ZerosLike(st[0]), st[0])
			return append([]*Node{left}, body(i, captured, st[1:])...)
		})
	return out[1:]
}

// checkBetweenSteps panics where tokens were appended and [Cache.Advance] was not called yet.
func checkBetweenSteps(method string, step int) {
	if step != 0 {
		exceptions.Panicf("kvq.%s: a step of %d tokens is under way; call Advance first", method, step)
	}
}
