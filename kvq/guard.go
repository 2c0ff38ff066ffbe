package kvq

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// guarded is the [Cache] that users get: one of the two caches, and what watches over its use.
//
// The order of calls is known while a graph is built, so a mistake in it panics there. How many
// tokens a cache holds is known on the device alone. There a step that does not fit, and every step
// after a wrong Crop or Reorder, gives NaN: in the first layer's output, from where it reaches all
// others. That is a select of one layer's output in a step.
type guarded struct {
	Cache
	capacity int
	cross    bool   // a step after the first appends nothing
	layout   Layout // of what is appended
	fresh    bool   // nothing was ever appended: what fits is known from shapes
	step     int    // t of the step under way, 0 between steps
	appended []bool // which layers were appended to in this step
	in       int    // tokens taken in since the cache was made
	counts   *Node  // see NewTokens; nil: every column is a token
}

func (p *Plan) guard(c Cache, fresh bool) Cache {
	return &guarded{Cache: c, capacity: p.shape.Capacity, cross: p.shape.Attention.Cross, layout: p.shape.Layout, fresh: fresh,
		appended: make([]bool, p.shape.Layers)}
}

// between panics where a step is under way.
func (g *guarded) between(method string) {
	if g.step != 0 {
		exceptions.Panicf("kvq.%s: a step of %d tokens is under way, want Advance before", method, g.step)
	}
}

// append notes that a layer is appended to in a step of t tokens.
func (g *guarded) append(layer, t int) {
	if layer >= 0 && layer < len(g.appended) {
		if g.appended[layer] {
			exceptions.Panicf("kvq.Append: layer %d was appended to in this step, want Advance before the next", layer)
		}
		g.appended[layer] = true
	}
	g.step = t
}

func (g *guarded) Nodes() []*Node {
	g.between("Nodes")
	return g.Cache.Nodes()
}

func (g *guarded) Positions(t int) *Node {
	if t < 1 || g.step != 0 && g.step != t {
		want := "at least 1"
		if g.step != 0 {
			want = "the same number, or Advance before"
		}
		exceptions.Panicf("kvq.Positions: %d tokens in a step of %d, want %s", t, g.step, want)
	}
	return g.Cache.Positions(t)
}

func (g *guarded) Layer(layer int) LayerCache {
	return guardedLayer{
		LayerCache: g.Cache.Layer(layer), layer: layer, layout: g.layout,
		append: func(t int) { g.append(layer, t) },
		appended: func() bool {
			return g.cross && !g.fresh || layer >= 0 && layer < len(g.appended) && g.appended[layer]
		},
		result: func(x *Node) *Node { return g.result(layer, x) },
	}
}

func (g *guarded) Through(layer int, x *Node, inputs []*Node, decoder Decoder) *Node {
	if g.cross {
		return decoder(g.Layer(layer), x, inputs)
	}
	t := dims(x)[1]
	g.append(layer, t)
	out := g.Cache.Through(layer, x, inputs, func(cache LayerCache, x *Node, inputs []*Node) *Node {
		times := 0
		out := decoder(guardedLayer{
			LayerCache: cache, layer: layer, layout: g.layout,
			append: func(int) {
				if times++; times > 1 {
					exceptions.Panicf("kvq.Append: layer %d was appended to in this step, want Advance before the next", layer)
				}
			},
			appended: func() bool { return times > 0 },
			result:   func(x *Node) *Node { return x },
		}, x, inputs)
		if times == 0 {
			exceptions.Panicf("kvq.Through: layer %d got no tokens, want one Append in the decoder", layer)
		}
		return out
	})
	return g.result(layer, out)
}

// guardedLayer is a layer of a guarded cache.
type guardedLayer struct {
	LayerCache
	layer    int
	layout   Layout
	append   func(t int)           // notes an Append
	appended func() bool           // in this step
	result   func(out *Node) *Node // of Attend
}

func (l guardedLayer) Append(keys, values *Node) {
	t := 0
	if keys.Rank() == 4 { // else the cache refuses it
		t = keys.Shape().Dim(2)
		if l.layout == BSHD {
			t = keys.Shape().Dim(1)
		}
	}
	l.append(t)
	l.LayerCache.Append(keys, values)
}

func (l guardedLayer) Attend(queries *Node) *Node {
	if !l.appended() {
		exceptions.Panicf("kvq.Attend: nothing was appended to layer %d in this step; call Append first", l.layer)
	}
	return l.result(l.LayerCache.Attend(queries))
}

func (g *guarded) NewTokens(counts *Node) {
	g.Cache.NewTokens(counts)
	g.counts = counts
}

func (g *guarded) Reset(rows *Node) {
	g.Cache.Reset(rows)
	g.fresh = false
}

func (g *guarded) Insert(rows *Node, from Cache) {
	if other, ok := from.(*guarded); ok {
		from = other.Cache
	}
	g.Cache.Insert(rows, from)
	g.fresh = false
}

// result is a layer's output, [B, ...]: NaN where the step does not fit.
func (g *guarded) result(layer int, out *Node) *Node {
	if layer != 0 || g.fresh || !out.DType().IsFloat() {
		return out
	}
	full := gx.GreaterThanScalar(grown(g.Length(), g.counts, g.step), g.capacity)
	if full.Rank() == 1 { // a length for each row
		full = Reshape(full, append([]int{full.Shape().Dim(0)}, slices.Repeat([]int{1}, out.Rank()-1)...)...)
	}
	full = gx.BroadcastToDims(full, dims(out)...)
	return Where(full, gx.Fill(out.Graph(), out.Shape(), math.NaN()), out)
}

func (g *guarded) Advance() {
	if g.cross && !g.fresh { // nothing was appended
		g.Cache.Advance()
		return
	}
	if g.step == 0 {
		exceptions.Panicf("kvq.Advance: nothing was appended in this step")
	}
	if layer := slices.Index(g.appended, false); layer >= 0 {
		exceptions.Panicf("kvq.Advance: layer %d got no tokens in this step of %d, want an Append to every layer", layer, g.step)
	}
	g.Cache.Advance()
	g.in += g.step
	g.step, g.counts, g.fresh = 0, nil, false
	clear(g.appended)
}

func (g *guarded) Crop(n *Node) {
	g.between("Crop")
	length := g.Length()
	if n.DType() != dtypes.Int32 || n.Rank() > length.Rank() || n.Rank() > 0 && !n.Shape().Equal(length.Shape()) {
		exceptions.Panicf("kvq.Crop: %s, want an int32 scalar: how many tokens of every row to forget", n.Shape())
	}
	if n.Rank() < length.Rank() {
		n = gx.BroadcastToDims(n, dims(length)...)
	}
	wrong := Or(gx.LessThanScalar(n, 0), GreaterThan(n, length))
	g.Cache.Crop(Where(wrong, gx.Zeros(n.Graph(), n.Shape()), n))
	g.spoil(wrong)
}

func (g *guarded) Reorder(rows *Node) {
	g.between("Reorder")
	b := g.batch()
	if rows.DType() != dtypes.Int32 || rows.Rank() != 1 || rows.Shape().Dim(0) != b {
		exceptions.Panicf("kvq.Reorder: rows %s, want int32 [%d]: the row that each becomes a copy of", rows.Shape(), b)
	}
	g.Cache.Reorder(rows)
	wrong := Or(gx.LessThanScalar(rows, 0), gx.GreaterOrEqualScalar(rows, b))
	if g.Length().Rank() == 0 {
		wrong = gx.LogicalAny(wrong)
	}
	g.spoil(wrong)
}

// spoil makes every later step NaN where wrong is true (bool, of the shape of the length): no
// length fits any more.
func (g *guarded) spoil(wrong *Node) {
	length := g.Length()
	length = Where(wrong, gx.Fill(length.Graph(), length.Shape(), g.capacity+1), length)
	switch c := g.Cache.(type) {
	case *fullCache:
		c.length = length
	case *quantizedCache:
		c.length = length
	}
	g.fresh = false
}

// batch is B.
func (g *guarded) batch() int {
	switch c := g.Cache.(type) {
	case *fullCache:
		return c.shape.Batch
	case *quantizedCache:
		return c.plan.shape.Batch
	}
	return 0
}

// advanced is how many tokens a cache took in since it was made from its state.
func advanced(c Cache) int { return c.(*guarded).in }
