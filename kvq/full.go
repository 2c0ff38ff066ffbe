package kvq

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// fullCache keeps every key and value as it came, one pair of arrays a layer: the cache to compare
// with.
//
// Heads and rows are one axis: with two, XLA's CPU compiler copies every array several times a step
// on the way to its products. Heads come first, so that a cut along them leaves every device heads
// of its own.
type fullCache struct {
	shape         Shape
	length, start *Node   // int32 [], or [B] with rows of their own lengths; [B]
	keys, values  []*Node // per layer [K*B, Capacity, D]

	fresh bool // nothing was ever appended: attention needs the new tokens alone
	step  int  // t of the step under way, 0 between steps
	// counts is how many of its columns are tokens, int32 or bool [B]; nil: all
	counts *Node
	// newKeys and newValues are the step's own tokens, kept for prefill.
	newKeys, newValues []*Node
	asked              Masks               // of the step
	seen               map[int]attend.Seen // of the step, the whole capacity, by window

	wholeLayers gx.Functions // see Through
}

func newFullCache(s Shape, nodes []*Node) *fullCache {
	c := &fullCache{shape: s, length: nodes[0], start: nodes[1]}
	for layer := range slices.Chunk(nodes[2:], 2) {
		c.keys, c.values = append(c.keys, layer[0]), append(c.values, layer[1])
	}
	c.newKeys, c.newValues = make([]*Node, s.Layers), make([]*Node, s.Layers)
	return c
}

func (c *fullCache) Nodes() []*Node {
	nodes := []*Node{c.length, c.start}
	for i := range c.keys {
		nodes = append(nodes, c.keys[i], c.values[i])
	}
	return nodes
}

func (c *fullCache) Length() *Node { return c.length }

func (c *fullCache) Positions(t int) *Node {
	return positions(stepIndex(c.start, c.length, c.counts, t))
}

func (c *fullCache) appendTo(layer int, keys, values *Node) {
	c.step = checkAppend("full", c.shape, c.step, layer, keys, values)
	checkCross(c.shape, c.fresh)
	zero := gx.Scalar(keys.Graph(), dtypes.Int32, 0)
	c.newKeys[layer], c.newValues[layer] = keys, values
	if c.shape.OwnLengths && !c.fresh {
		c.putRows(layer, keys, values)
		return
	}
	at := c.length
	if c.fresh {
		at = zero
	}
	put := func(x, more *Node) *Node {
		more = Reshape(swapFirst(numbers.NarrowTo(more, c.shape.DType)), dims(x)[0], c.step, dims(x)[2])
		return DynamicUpdateSlice(x, more, []*Node{zero, at, zero})
	}
	c.keys[layer], c.values[layer] = put(c.keys[layer], keys), put(c.values[layer], values)
}

// putRows appends where rows have lengths of their own.
func (c *fullCache) putRows(layer int, keys, values *Node) {
	s := c.shape
	apart := func(x *Node) *Node { return Reshape(x, s.KVHeads, s.Batch, s.Capacity, dims(x)[2]) }
	together := func(x *Node) *Node { return Reshape(x, s.KVHeads*s.Batch, s.Capacity, dims(x)[3]) }
	more := func(x *Node) *Node { return swapFirst(numbers.NarrowTo(x, s.DType)) } // [K, B, t, D]
	out := putRows([2]*Node{apart(c.keys[layer]), apart(c.values[layer])}, [2]*Node{more(keys), more(values)}, 1, c.length, c.counts)
	c.keys[layer], c.values[layer] = together(out[0]), together(out[1])
}

func (c *fullCache) attendTo(layer int, queries *Node) *Node {
	checkAttend(c.shape, c.step, c.fresh, queries)
	c.asked.check(queries, c.counts)
	if c.fresh {
		return c.shape.prompt(layer, queries, c.newKeys[layer], c.newValues[layer], c.start, c.asked)
	}
	s := c.shape.scores()
	q := swapFirst(attend.FoldQueries(queries, c.shape.KVHeads, s.Scale)) // [K, B, Q, D]
	d := dims(q)
	rows := func(x *Node) *Node { return Reshape(x, d[0]*d[1], d[2], dims(x)[3]) }
	product := func(x, y *Node, contract int) *Node {
		z := Dot(numbers.NarrowTo(rows(x), y.DType()), y).WithOutputDType(dtypes.Float32).General([]int{2}, []int{0}, []int{contract}, []int{0})
		return Reshape(z, d[0], d[1], d[2], dims(z)[2])
	}
	scores := s.Finish(product(q, c.keys[layer], 2), c.stepSeen(layer), d[0], true)
	p := attend.NewPartial(scores, func(w *Node) *Node { return product(w, c.values[layer], 1) })
	return attend.UnfoldQueries(swapFirst(p.Result()), queries)
}

// stepSeen is what the step's queries see of all slots, the same for all layers of one window.
func (c *fullCache) stepSeen(layer int) attend.Seen {
	window := c.shape.window(layer)
	seen, ok := c.seen[window]
	if !ok {
		index := attend.TokenIndex(c.start, gx.Scalar(c.length.Graph(), dtypes.Int32, 0), c.shape.Capacity)
		position := c.shape.newest(c.start, c.length, c.counts, c.step)
		if c.asked.Visible != nil { // the slots that are filled, where causality does not say so
			newest := gx.BroadcastToDims(Slice(position, AxisRange(), AxisRange(-1)), dims(index)...)
			index = Where(LessOrEqual(index, newest), index, gx.Fill(index.Graph(), index.Shape(), -1))
		}
		seen = c.shape.view(window, position, c.asked).Of(index)
		if c.seen == nil {
			c.seen = map[int]attend.Seen{}
		}
		c.seen[window] = seen
	}
	return seen
}

func (c *fullCache) Advance() {
	c.length = grown(c.length, c.counts, c.step)
	c.step, c.counts, c.seen, c.asked, c.fresh = 0, nil, nil, Masks{}, false
}

func (c *fullCache) Crop(n *Node) { c.length = Sub(c.length, n) }

func (c *fullCache) Reorder(rows *Node) {
	c.start = takeRows(c.start, rows, 0)
	if c.shape.OwnLengths {
		c.length = takeRows(c.length, rows, 0)
	}
	heads := headRows(rows, c.shape)
	for i := range c.keys {
		c.keys[i], c.values[i] = takeRows(c.keys[i], heads, 0), takeRows(c.values[i], heads, 0)
	}
}

// positions are the rotary positions of tokens with these indices, [B, t] int32.
func positions(index *Node) *Node {
	return Max(index, gx.Zeros(index.Graph(), index.Shape()))
}

// swapFirst swaps rows and heads: [B, K, ...] -> [K, B, ...], and back.
func swapFirst(x *Node) *Node { return Transpose(x, 0, 1) }

// headRows are the places of rows [N] (int32) along an axis of K*B heads of rows: [K*N].
func headRows(rows *Node, s Shape) *Node {
	n := dims(rows)[0]
	first := gx.MulScalar(Iota(rows.Graph(), shapes.Make(dtypes.Int32, s.KVHeads, n), 0), s.Batch)
	return Reshape(Add(first, gx.BroadcastToDims(Reshape(rows, 1, n), s.KVHeads, n)), s.KVHeads*n)
}

// takeRows picks rows (int32 [N]) of x along axis.
func takeRows(x, rows *Node, axis int) *Node {
	n := rows.Shape().Dim(0)
	order := make([]int, x.Rank())
	for i := range order {
		order[i] = i
	}
	order[0], order[axis] = axis, 0
	if axis != 0 {
		x = TransposeAllAxes(x, order...)
	}
	x = Gather(x, Reshape(rows, n, 1))
	if axis != 0 {
		x = TransposeAllAxes(x, order...)
	}
	return x
}

// checkAppend panics where new keys and values do not fit, and returns t, the tokens of the step.
func checkAppend(kind string, s Shape, step, layer int, keys, values *Node) int {
	if layer < 0 || layer >= s.Layers {
		exceptions.Panicf("kvq.Append: layer %d, the %s cache holds layers 0 to %d", layer, kind, s.Layers-1)
	}
	if keys.Rank() != 4 || keys.Shape().Dim(0) != s.Batch || keys.Shape().Dim(1) != s.KVHeads || keys.Shape().Dim(3) != s.HeadDim {
		exceptions.Panicf("kvq.Append: keys %s, want %s", s.Layout.shown(keys),
			s.Layout.order(fmt.Sprint(s.Batch), fmt.Sprint(s.KVHeads), "t", fmt.Sprint(s.HeadDim), "key/value heads", "new tokens"))
	}
	if want := shapes.Make(keys.DType(), s.Batch, s.KVHeads, dims(keys)[2], s.valueDim()); !values.Shape().Equal(want) {
		if s.ValueDim > 0 {
			exceptions.Panicf("kvq.Append: values %s, want those of the keys %s with %d elements", s.Layout.shown(values), s.Layout.shown(keys), s.ValueDim)
		}
		exceptions.Panicf("kvq.Append: values %s, want the shape of the keys %s", s.Layout.shown(values), s.Layout.shown(keys))
	}
	t := keys.Shape().Dim(2)
	if t > s.Capacity {
		exceptions.Panicf("kvq.Append: %d new tokens, the cache has a capacity of %d", t, s.Capacity)
	}
	if step != 0 && step != t {
		exceptions.Panicf("kvq.Append: layer %d got %d new tokens, the layers before it got %d in this step", layer, t, step)
	}
	return t
}

// checkCross panics where a cache for cross-attention gets more than it began with.
func checkCross(s Shape, fresh bool) {
	if s.Attention.Cross && !fresh {
		exceptions.Panicf("kvq.Append: a cross-attention cache takes its tokens in the step of Plan.Init; attend without Append after it")
	}
}

// checkAttend panics where queries do not fit the tokens just appended.
func checkAttend(s Shape, step int, fresh bool, queries *Node) {
	cross := s.Attention.Cross
	if step == 0 && (fresh || !cross) {
		exceptions.Panicf("kvq.Attend: nothing was appended in this step; call Append first")
	}
	q := queries.Shape()
	if cross && q.Rank() == 4 {
		step = q.Dim(2) // any number
	}
	if q.Rank() != 4 || q.Dim(0) != s.Batch || q.Dim(1)%s.KVHeads != 0 || q.Dim(2) != step || q.Dim(3) != s.HeadDim {
		tokens, which := fmt.Sprint(step), "the appended tokens"
		if cross {
			tokens, which = "t", "tokens"
		}
		exceptions.Panicf("kvq.Attend: queries %s, want %s", s.Layout.shown(queries),
			s.Layout.order(fmt.Sprint(s.Batch), fmt.Sprintf("a multiple of %d", s.KVHeads), tokens, fmt.Sprint(s.HeadDim), "query heads", which))
	}
	s.Attention.checkSlopes(q.Dim(1))
}
