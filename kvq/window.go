package kvq

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// The full-precision part of a quantized cache is one array per layer and side, [B, K, E, D] with E
// = S + W:
//
//	slots 0..S-1    sinks: tokens 0..S-1 of each row, kept exact for good
//	slots S..E-1    the window: a ring of W slots. The token that came in cache slot c (padding included, so c is the same for all rows
//	                that grow together) lies at S + c mod W.
//
// exactIndex [B, E] int32 names the token in each slot by its index in the row, -1 where there is
// none. Attention reads order from it alone, so the ring is never rotated or shifted.

// ringSlot is where the token of cache slot c lies: S + c mod W. int32, of any shape.
func (p *Plan) ringSlot(c *Node) *Node {
	return gx.AddScalar(Rem(c, gx.Scalar(c.Graph(), dtypes.Int32, p.windowSlots)), p.sinks)
}

// appendExact writes one new token a row into the windows of keys and values. One of the first of a
// row goes to its sink: then what is in the window's slot is not looked at.
//
//	exact [B, K, E, D], token [B, K, 1, D]; slot: see ringSlot, int32, for all rows or [B]
//	index [B] int32: the token's index in its row; negative: none that becomes a sink
//	counts [B] int32: which rows have a token, see putRows; nil: all
func (p *Plan) appendExact(exact, token [2]*Node, slot, index, counts *Node) [2]*Node {
	zero := gx.Scalar(slot.Graph(), dtypes.Int32, 0)
	switch {
	case scatters(slot.Graph()) && (p.sinks > 0 || slot.Rank() > 0):
		return scatterRows(exact, token, 0, p.exactSlot(slot, index), counts)
	case slot.Rank() > 0:
		exact = putRows(exact, token, 0, slot, counts)
	default:
		for i := range exact {
			exact[i] = DynamicUpdateSlice(exact[i], token[i], []*Node{zero, zero, slot, zero})
		}
	}
	if p.sinks > 0 {
		for i := range exact {
			exact[i] = p.appendSink(exact[i], token[i], index)
		}
	}
	return exact
}

// exactSlot is where the token of each row belongs, its sink or its slot of the ring: [B] int32.
// Arguments are those of appendExact.
func (p *Plan) exactSlot(slot, index *Node) *Node {
	if slot.Rank() == 0 {
		slot = gx.BroadcastToDims(slot, dims(index)...)
	}
	sink := And(gx.GreaterOrEqualScalar(index, 0), gx.LessThanScalar(index, p.sinks))
	return Where(sink, index, slot)
}

// appendSink writes the token of each row that is one of the first into its sink.
func (p *Plan) appendSink(exact, token, index *Node) *Node {
	d := dims(exact)
	size := []int{d[0], d[1], p.sinks, d[3]}
	own := Equal(Iota(exact.Graph(), shapes.Make(dtypes.Int32, d[0], p.sinks), 1), gx.BroadcastToDims(Reshape(index, d[0], 1), d[0], p.sinks))
	own = gx.BroadcastToDims(Reshape(own, d[0], 1, p.sinks, 1), size...)
	sinks := Where(own, gx.BroadcastToDims(token, size...), Slice(exact, AxisRange(), AxisRange(), AxisRange(0, p.sinks)))
	return DynamicUpdateSlice(exact, sinks, slices.Repeat([]*Node{gx.Scalar(exact.Graph(), dtypes.Int32, 0)}, 4))
}

// appendIndex records the new token in exactIndex [B, E]: in the window, or in its sink when it is
// one of the first S. Arguments are those of appendExact.
func (p *Plan) appendIndex(exactIndex, slot, index, counts *Node) *Node {
	g, b := exactIndex.Graph(), exactIndex.Shape().Dim(0)
	zero := gx.Scalar(g, dtypes.Int32, 0)
	column := Reshape(index, b, 1)
	if p.sinks > 0 {
		sinks := Slice(exactIndex, AxisRange(), AxisRange(0, p.sinks))
		at := Iota(g, sinks.Shape(), 1)
		own := Equal(at, gx.BroadcastToDims(column, b, p.sinks))
		exactIndex = DynamicUpdateSlice(exactIndex, Where(own, at, sinks), []*Node{zero, zero})
		column = Where(LessThan(column, gx.Fill(g, column.Shape(), float64(p.sinks))), gx.Fill(g, column.Shape(), -1), column)
	}
	if slot.Rank() > 0 {
		return putIndex(exactIndex, column, slot, counts)
	}
	return DynamicUpdateSlice(exactIndex, column, []*Node{zero, slot})
}

// promptExact lays the newest tokens of a prompt into an empty window, and its first ones into the
// sinks.
//
//	x [B, K, T, D], start [B] -> [B, K, E, D]
func (p *Plan) promptExact(x, start *Node) *Node {
	s := x.Shape()
	t := s.Dim(2)
	ring := p.promptRing(x, 2)
	if p.sinks == 0 {
		return ring
	}
	first := alignRows(x, start, 0, min(p.sinks, t))
	if pad := p.sinks - min(p.sinks, t); pad > 0 {
		first = Concatenate([]*Node{first, gx.Zeros(x.Graph(), shapes.Make(x.DType(), s.Dim(0), s.Dim(1), pad, s.Dim(3)))}, 2)
	}
	return Concatenate([]*Node{first, ring}, 2)
}

// promptRing puts the newest W of T slots where the ring has them: slot c at c mod W. axis has size
// T and becomes W.
func (p *Plan) promptRing(x *Node, axis int) *Node {
	g, t, w := x.Graph(), x.Shape().Dim(axis), p.windowSlots
	cut := func(from, to int) *Node {
		ranges := make([]SliceAxisSpec, x.Rank())
		for i := range ranges {
			ranges[i] = AxisRange()
		}
		ranges[axis] = AxisRange(from, to)
		return Slice(x, ranges...)
	}
	if t < w {
		dims := x.Shape().Clone()
		dims.Dimensions[axis] = w - t
		return Concatenate([]*Node{x, gx.Zeros(g, dims)}, axis)
	}
	wrap := t / w * w // the newest slot that lies at the ring's start
	if wrap == t {
		return cut(t-w, t)
	}
	return Concatenate([]*Node{cut(wrap, t), cut(t-w, wrap)}, axis)
}

// promptIndex is exactIndex [B, E] after a prompt of T slots whose tokens before next [B] (row
// indices) are coded.
func (p *Plan) promptIndex(start, next *Node, t int) *Node {
	g, b := start.Graph(), start.Shape().Dim(0)
	index := attend.TokenIndex(start, gx.Scalar(g, dtypes.Int32, 0), t)
	none := gx.Fill(g, index.Shape(), -1)
	held := And(GreaterOrEqual(index, gx.BroadcastToDims(Reshape(next, b, 1), b, t)), GreaterOrEqual(index, gx.Fill(g, index.Shape(), float64(p.sinks))))
	index = Where(held, index, none)
	if t < p.windowSlots {
		index = Concatenate([]*Node{index, gx.Fill(g, shapes.Make(dtypes.Int32, b, p.windowSlots-t), -1)}, 1)
	} else {
		index = p.promptRing(index, 1)
	}
	if p.sinks == 0 {
		return index
	}
	sink := Iota(g, shapes.Make(dtypes.Int32, b, p.sinks), 1)
	tokens := gx.BroadcastToDims(Reshape(Sub(gx.Scalar(g, dtypes.Int32, t), start), b, 1), b, p.sinks)
	sink = Where(LessThan(sink, tokens), sink, gx.Fill(g, sink.Shape(), -1))
	return Concatenate([]*Node{sink, index}, 1)
}

// alignRows takes n tokens of each row, from the row's token first on, padding left out: x [B, K,
// T, D], start [B] -> [B, K, n, D]. Past the end of a row it repeats the last token; who calls
// knows how many are the row's own.
func alignRows(x, start *Node, first, n int) *Node {
	s := x.Shape()
	g, b, t := x.Graph(), s.Dim(0), s.Dim(2)
	column := Add(Iota(g, shapes.Make(dtypes.Int32, b, n), 1), gx.BroadcastToDims(Reshape(gx.AddScalar(start, first), b, 1), b, n))
	column = Min(column, gx.Fill(g, column.Shape(), float64(t-1)))
	return TransposeAllAxes(gx.TakeAt(TransposeAllAxes(x, 0, 2, 1, 3), column), 0, 2, 1, 3)
}
