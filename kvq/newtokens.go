package kvq

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

// A step has t columns. Where rows have lengths of their own, counts says how many of them are
// tokens of a row, the last ones: see [Cache.NewTokens].

func (c *fullCache) NewTokens(counts *Node) {
	checkNewTokens(c.shape, c.fresh, c.step, counts)
	c.counts = counts
}

func (c *quantizedCache) NewTokens(counts *Node) {
	checkNewTokens(c.plan.shape, c.fresh, c.step, counts)
	c.counts = counts
}

func checkNewTokens(s Shape, fresh bool, step int, counts *Node) {
	checkOwnLengths("NewTokens", s)
	switch {
	case s.Attention.Cross:
		exceptions.Panicf("kvq.NewTokens: a cross-attention cache takes no new tokens")
	case fresh:
		exceptions.Panicf("kvq.NewTokens: the cache starts in this step, and its padding is what Plan.Init was given")
	case step != 0:
		exceptions.Panicf("kvq.NewTokens: a step of %d tokens is under way; call it before the first Append", step)
	case counts.DType() != dtypes.Int32 && counts.DType() != dtypes.Bool || counts.Rank() != 1 || dims(counts)[0] != s.Batch:
		exceptions.Panicf("kvq.NewTokens: counts %s, want int32 or bool [%d]: the new tokens of each row", counts.Shape(), s.Batch)
	}
}

// checkOwnLengths panics where rows grow together.
func checkOwnLengths(method string, s Shape) {
	if !s.OwnLengths {
		exceptions.Panicf("kvq.%s: want a plan with Shape.OwnLengths, got one whose rows grow together", method)
	}
}

// countsOf are the tokens of each row in a step of t columns, [B] int32.
func countsOf(counts *Node, t int) *Node {
	if counts.DType() == dtypes.Bool {
		return gx.MulScalar(ConvertDType(counts, dtypes.Int32), t)
	}
	return counts
}

// grown is length after a step of t columns.
func grown(length, counts *Node, t int) *Node {
	if counts == nil {
		return gx.AddScalar(length, t)
	}
	return Add(length, countsOf(counts, t))
}

// stepIndex is the index in its row of each column of a step, [B, t] int32; negative: no token.
func stepIndex(start, length, counts *Node, t int) *Node {
	if counts == nil {
		return attend.TokenIndex(start, length, t)
	}
	g, b := start.Graph(), dims(start)[0]
	padding := Sub(gx.Scalar(g, dtypes.Int32, t), countsOf(counts, t)) // columns before the tokens
	index := attend.TokenIndex(start, Sub(length, padding), t)
	column := Iota(g, index.Shape(), 1)
	return Where(LessThan(column, gx.BroadcastToDims(Reshape(padding, b, 1), b, t)), gx.Fill(g, index.Shape(), -1), index)
}

// largest is a scalar length that no row's exceeds.
func largest(length *Node) *Node {
	if length.Rank() == 0 {
		return length
	}
	return gx.ReduceMax(length)
}

// putRows writes the t new columns of each row to slots of its own, in keys and values at once.
//
//	x      two of rank 4 with slots as axis 2 and rows as axis rows
//	more   as x, with t columns in the place of slots
//	slot   [B] int32: where the first token of a row goes
//	counts tokens of each row, see [Cache.NewTokens]; nil: all columns are
//
// On a GPU it is a scatter, one kernel for all rows of an array, in place.
func putRows(x, more [2]*Node, rows int, slot, counts *Node) [2]*Node {
	if scatters(slot.Graph()) {
		return scatterRows(x, more, rows, slot, counts)
	}
	return putRowsInTurn(x, more, rows, slot, counts)
}

// scatters reports whether rows are written by [scatterRows]. XLA's partitioner would have to know
// that it need not gather heads for it.
func scatters(g *Graph) bool { return gx.OnGPU(g) && gx.Sharing(g) == 1 }

// scatterRows is putRows at once.
func scatterRows(x, more [2]*Node, rows int, slot, counts *Node) [2]*Node {
	places := dims(more[0])[:3]
	at := shapes.Make(dtypes.Int32, places...)
	ofRows := func(x *Node) *Node { // of each row, in the place of all its columns
		one := []int{1, 1, 1}
		one[rows] = places[rows]
		return gx.BroadcastToDims(Reshape(x, one...), places...)
	}
	g := slot.Graph()
	column := Iota(g, at, 2)
	to := Add(ofRows(slot), column)
	if counts != nil { // what is no token goes beyond the end, so nowhere
		padding := Sub(gx.Scalar(g, dtypes.Int32, places[2]), countsOf(counts, places[2]))
		to = Where(LessThan(column, ofRows(padding)), gx.AddScalar(column, dims(x[0])[2]), Sub(to, ofRows(padding)))
	}
	place := Stack([]*Node{Iota(g, at, 0), Iota(g, at, 1), to}, -1)
	for i := range x {
		x[i] = gx.ScatterSet(x[i], place, more[i])
	}
	return x
}

// putRowsInTurn is putRows as a While over the rows, in which XLA's CPU compiler writes in place.
// It copies the arrays where the writes follow one another outside of a loop, and its scatter is a
// loop too.
func putRowsInTurn(x, more [2]*Node, rows int, slot, counts *Node) [2]*Node {
	b, t := dims(x[0])[rows], dims(more[0])[2]
	captured := []*Node{more[0], more[1], slot}
	if counts != nil {
		captured = append(captured, countsOf(counts, t))
	}
	out := gx.LoopOver(captured, []*Node{gx.Scalar(slot.Graph(), dtypes.Int32, 0), x[0], x[1]},
		func(st []*Node) *Node { return gx.LessThanScalar(st[0], b) },
		func(captured, st []*Node) []*Node {
			row, g := st[0], st[0].Graph()
			of := func(x *Node) *Node { return Reshape(gx.DynamicSlice(x, []*Node{row}, []int{1})) }
			slot := of(captured[2])
			next := []*Node{gx.AddScalar(row, 1)}
			for i, x := range st[1:] {
				at := []*Node{gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, 0), gx.Scalar(g, dtypes.Int32, 0)}
				at[rows] = row
				size := slices.Clone(dims(captured[i]))
				size[rows] = 1
				values := gx.DynamicSlice(captured[i], at, size)
				at[2] = slot
				if counts != nil {
					values, at[2] = onlyTokens(x, values, at, of(captured[3]))
				}
				next = append(next, DynamicUpdateSlice(x, values, at))
			}
			return next
		})
	return [2]*Node{out[1], out[2]}
}

// onlyTokens is what to write to x for one row's columns, of which only the last count (int32
// scalar) are tokens, from place at on; and the slot to write it to. Nothing but the slots of these
// tokens changes, and no token goes beyond the last slot.
func onlyTokens(x, columns *Node, at []*Node, count *Node) (values, slot *Node) {
	g, t := x.Graph(), dims(columns)[2]
	// The t slots that are written over end where the array does. The i-th of them gets column
	// i + shift, if that is a token, else it stays.
	slot = gx.MinScalar(at[2], dims(x)[2]-t)
	padding := Sub(gx.Scalar(g, dtypes.Int32, t), count)
	shift := Add(Sub(slot, at[2]), padding)
	column := Add(Iota(g, shapes.Make(dtypes.Int32, dims(columns)...), 2), shift)
	token := And(GreaterOrEqual(column, padding), gx.LessThanScalar(column, t))
	at = slices.Clone(at)
	at[2] = slot
	return Where(token, shiftColumns(columns, shift), gx.DynamicSlice(x, at, dims(columns))), slot
}

// shiftColumns moves column i + shift to column i, of t columns along axis 2, for a shift of -t to
// t (int32 scalar). What comes in from outside is 0.
func shiftColumns(x, shift *Node) *Node {
	g, t := x.Graph(), dims(x)[2]
	if t == 1 { // a column that is shifted is not used
		return x
	}
	pads := make([]compute.PadAxis, x.Rank())
	pads[2].Start, pads[2].End = t, t
	return cutAxis(Pad(x, gx.Scalar(g, x.DType(), 0), pads...), gx.AddScalar(shift, t), 2, t)
}

// putIndex writes an index a row, [B, 1] int32, to slots of their own, [B], of index [B, slots].
// counts is as for putRows.
func putIndex(index, more, slot, counts *Node) *Node {
	d := dims(index)
	here := Equal(Iota(index.Graph(), index.Shape(), 1), gx.BroadcastToDims(Reshape(slot, d[0], 1), d...))
	if counts != nil {
		token := gx.GreaterThanScalar(countsOf(counts, 1), 0)
		here = And(here, gx.BroadcastToDims(Reshape(token, d[0], 1), d...))
	}
	return Where(here, gx.BroadcastToDims(more, d...), index)
}
