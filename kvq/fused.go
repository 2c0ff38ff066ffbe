package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Products with codes that are never unpacked into memory: a sum over the rows of a block, for all lanes, in one pass over the words.
//
// What shares a word is added first, elementwise over all words: load, mask, convert, multiply, add. Then the words of a lane are added, on
// a GPU as a reduction, which becomes one kernel. XLA's CPU compiler does not vectorise a reduction over an axis that is not the last; there the
// words are added as slices, one addition each, and all of it becomes one vectorised loop over the lanes. Few operations in the graph matter
// as much as few instructions, since XLA's time to compile follows them (docs/benchmarks.md).

// oneLoop turns what has to do with the compiler of a CPU on, and off for a GPU; see gx.SumSlices and gx.KeepLoop.
type oneLoop struct{ always *Node } // bool scalar; nil on a GPU

// newOneLoop makes it for the device of length, int32 scalar of at least 0.
func newOneLoop(length *Node) oneLoop {
	if gx.OnGPU(length.Graph()) {
		return oneLoop{}
	}
	return oneLoop{gx.GreaterOrEqualScalar(length, 0)}
}

func (o oneLoop) keep(x *Node) *Node {
	if o.always == nil {
		return x
	}
	return gx.KeepLoop(o.always, x)
}

// sumAxis sums the entries from..to-1 of an axis, which goes away.
func (o oneLoop) sumAxis(x *Node, axis, from, to int) *Node {
	if o.always == nil || to-from > maxWords {
		return gx.ReduceSum(SliceAxis(x, axis, AxisRange(from, to)), axis)
	}
	return gx.SumSlices(x, axis, from, to)
}

// sumBlocks sums over blocks, axis 0: on a CPU a few of them in one loop first.
func (o oneLoop) sumBlocks(x *Node) *Node {
	d := dims(x)
	if few := commonFactor(d[0], 8); few > 1 && o.always != nil {
		x = o.keep(o.sumAxis(Reshape(x, append([]int{d[0] / few, few}, d[1:]...)...), 1, 0, few))
	}
	return gx.ReduceSum(x, 0)
}

// commonFactor is the largest power of two that divides n, at most limit.
func commonFactor(n, limit int) int {
	f := 1
	for f < limit && n%(2*f) == 0 {
		f *= 2
	}
	return f
}

// sumFields adds x_k·w_k over the fields of words: all arrays come broadcast to the same shape by of.
func sumFields(fields []*Node, of func(k int, field *Node) (x, weight *Node)) *Node {
	var terms []*Node
	for k, field := range fields {
		x, w := of(k, field)
		terms = append(terms, Mul(x, w))
	}
	return gx.SumInChains(terms)
}

// plane is a plane of codes: its words taken apart.
type plane struct {
	fields  []*Node // of its words
	count   int     // words
	factors *Node   // [rows]
}

// planesOf are the planes of codes that are packed; codes that are not are a plane of rows of one field. lay brings the words of a plane into the
// order of the sum.
func (s side) planesOf(codes *Node, headDim int, lay func(words *Node) *Node) []plane {
	g := codes.Graph()
	if !s.packed() {
		rows, _ := s.matrix(headDim)
		return []plane{{[]*Node{s.number(lay(codes))}, rows, gx.Fill(g, shapes.Make(dtypes.Float32, rows), 1)}}
	}
	l := s.words(headDim)
	var out []plane
	first, low := 0, 0
	for _, w := range planes(s.bits) {
		n := l.count(w)
		words := codes
		if n < dims(codes)[3] {
			words = SliceAxis(codes, 3, AxisRange(first, first+n))
		}
		out = append(out, plane{l.fields(lay(words), w), n, l.factors(g, w, low)})
		first, low = first+n, low+w
	}
	return out
}

// scores are products of queries q [B, K, Q, D] float32 with the coded keys of a layer: [N, B, K, Q, 32] float32.
func (s side) scores(q *Node, x coded, o oneLoop) *Node {
	d := dims(q)
	n, b, k, rows, dim := dims(x.codes)[0], d[0], d[1], d[2], d[3]
	l := s.words(dim)
	if !s.packed() {
		l = wordLayout{parts: 1, rows: dim}
	}
	h := k * l.parts
	out := []int{n, b, h, rows, blockTokens}
	parts := func(x *Node) *Node { // [m, B, K, Q, D] -> [m, B, H, Q, D/parts]
		m := dims(x)[0]
		return Reshape(TransposeAllAxes(Reshape(x, m, b, k, rows, l.parts, l.rows), 0, 1, 2, 4, 3, 5), m, b, h, rows, l.rows)
	}
	scale, zero := s.scaleAndZero(x)
	weights := Reshape(q, 1, b, k, rows, dim)
	groups := 1 // of a part
	if s.axis == PerChannel {
		// Scales belong to channels and go into the query: q·(scale·code + zero) = (q·scale)·code + q·zero.
		m := dims(scale)[0]
		weights = Mul(gx.BroadcastToDims(weights, m, b, k, rows, dim), gx.BroadcastToDims(Reshape(scale, m, b, k, 1, dim), m, b, k, rows, dim))
		weights = perBlock(weights, n)
	} else {
		groups = max(1, s.groups(dim)/l.parts)
	}
	weights = parts(weights)
	m := dims(weights)[0]
	sums := make([]*Node, groups)
	for _, p := range s.planesOf(x.codes, dim, func(words *Node) *Node { return words }) {
		full := []int{n, b, h, rows, p.count, blockTokens}
		w := Mul(weights, gx.BroadcastToDims(Reshape(p.factors, 1, 1, 1, 1, l.rows), m, b, h, rows, l.rows))
		w = Reshape(w, m, b, h, rows, p.count, l.rows/p.count)
		words := sumFields(p.fields, func(i int, field *Node) (*Node, *Node) {
			return ExpandAndBroadcast(field, full, []int{3}), gx.BroadcastToDims(SliceAxis(w, 5, AxisElem(i)), full...)
		})
		for g := range sums {
			part := o.sumAxis(words, 4, g*p.count/groups, (g+1)*p.count/groups)
			if sums[g] != nil {
				part = Add(sums[g], part)
			}
			sums[g] = part
		}
	}
	if s.axis == PerChannel {
		sum := s.sumParts(o.keep(sums[0]), l.parts, o)
		zeros := TransposeAllAxes(DotGeneral(q, []int{3}, []int{0, 1}, zero, []int{3}, []int{1, 2}), 3, 0, 1, 2) // [groups, B, K, Q]
		return Add(sum, gx.BroadcastToDims(Reshape(perBlock(zeros, n), n, b, k, rows, 1), n, b, k, rows, blockTokens))
	}
	// Scales belong to tokens and multiply the sum over each group of channels.
	ofPart := func(x *Node) *Node { // [N, B, K, D/G, 32] -> [N, B, H, groups, 32]
		if own := s.groups(dim); own < l.parts {
			x = Reshape(x, n, b, k, own, 1, blockTokens)
			x = gx.BroadcastToDims(x, n, b, k, own, l.parts/own, blockTokens)
		}
		return Reshape(x, n, b, h, groups, blockTokens)
	}
	lanes := func(x *Node, g int) *Node { return gx.BroadcastToDims(SliceAxis(x, 3, AxisElem(g)), out...) }
	scale = ofPart(scale)
	var total *Node // sums of the query over each group
	if zero != nil {
		zero = ofPart(zero)
		total = gx.ReduceSum(Reshape(parts(Reshape(q, 1, b, k, rows, dim)), b, h, rows, groups, l.rows/groups), 4)
	}
	for g := range sums {
		sums[g] = Mul(sums[g], lanes(scale, g))
		if zero != nil {
			column := Reshape(SliceAxis(total, 3, AxisElem(g)), 1, b, h, rows, 1)
			sums[g] = Add(sums[g], Mul(lanes(zero, g), gx.BroadcastToDims(column, out...)))
		}
	}
	return s.sumParts(o.keep(gx.SumInPairs(sums)), l.parts, o)
}

// sumParts adds the parts of a head: [N, B, K·parts, Q, 32] -> [N, B, K, Q, 32].
func (s side) sumParts(x *Node, parts int, o oneLoop) *Node {
	if parts == 1 {
		return x
	}
	d := dims(x)
	return o.sumAxis(Reshape(x, d[0], d[1], d[2]/parts, parts, d[3], d[4]), 3, 0, parts)
}

// weighedSum are sums of the coded values of a layer by weights w [N, B, K, Q, 32] float32: [B, K, Q, D] float32.
func (s side) weighedSum(w *Node, x coded, o oneLoop) *Node {
	d := dims(w)
	n, b, k, rows := d[0], d[1], d[2], d[3]
	dim := dims(x.codes)[4]
	scale, zero := s.scaleAndZero(x)
	if s.axis == PerChannel {
		sums := s.weighBlocks(Reshape(w, n, b, k, rows, 1, blockTokens), x.codes, 1, o) // [N, B, K, Q, 1, D]
		groups := dims(scale)[0]
		ofChannel := func(x *Node) *Node {
			return gx.BroadcastToDims(perBlock(Reshape(x, groups, b, k, 1, dim), n), n, b, k, rows, dim)
		}
		total := gx.BroadcastToDims(Reshape(gx.ReduceSum(w, 4), n, b, k, rows, 1), n, b, k, rows, dim)
		sum := Mul(Reshape(sums, n, b, k, rows, dim), ofChannel(scale))
		return o.sumBlocks(o.keep(Add(sum, Mul(total, ofChannel(zero)))))
	}
	groups := s.groups(dim)
	full := []int{n, b, k, rows, groups, blockTokens}
	ofToken := func(x *Node) *Node { return gx.BroadcastToDims(Reshape(x, n, b, k, 1, groups, blockTokens), full...) }
	each := gx.BroadcastToDims(Reshape(w, n, b, k, rows, 1, blockTokens), full...)
	// One query a head: two blocks at a time, which halves what is written. With more, the weights would no longer fit the registers.
	together := 1
	if rows == 1 && o.always != nil {
		together = commonFactor(n, 2)
	}
	sum := gx.ReduceSum(s.weighBlocks(Mul(each, ofToken(scale)), x.codes, together, o), 0) // [B, K, Q, D/G, G]
	if zero != nil {
		zeros := gx.ReduceSum(o.sumBlocks(Mul(each, ofToken(zero))), 4) // [B, K, Q, D/G]
		sum = Add(sum, gx.BroadcastToDims(Reshape(zeros, b, k, rows, groups, 1), dims(sum)...))
	}
	return Reshape(sum, b, k, rows, dim)
}

// weighBlocks sums the codes of each block by weights: weights [N, B, K, Q, S, 32] for S runs of lanes -> [N/together, B, K, Q, S, D/S].
func (s side) weighBlocks(weights, codes *Node, together int, o oneLoop) *Node {
	w, lanes := dims(weights), dims(codes)[4]
	n, b, k, rows, runs := w[0]/together, w[1], w[2], w[3], w[4]
	var sum *Node
	for _, p := range s.planesOf(codes, lanes, func(x *Node) *Node {
		x = Reshape(x, n, together, b, k, dims(x)[3], runs, lanes/runs)
		if runs == 1 {
			return Reshape(x, n, together, b, k, runs, dims(x)[4], lanes)
		}
		return TransposeAllAxes(x, 0, 1, 2, 3, 5, 4, 6)
	}) {
		full := []int{n, together, b, k, rows, runs, p.count, lanes / runs}
		scaled := o.keep(Mul(weights, gx.BroadcastToDims(Reshape(p.factors, 1, 1, 1, 1, 1, blockTokens), w...)))
		scaled = Reshape(scaled, n, together, b, k, rows, runs, p.count, blockTokens/p.count)
		words := sumFields(p.fields, func(i int, field *Node) (*Node, *Node) {
			return ExpandAndBroadcast(field, full, []int{4}),
				gx.BroadcastToDims(SliceAxis(scaled, 7, AxisElem(i)), full...)
		})
		words = Reshape(TransposeAllAxes(words, 0, 2, 3, 4, 5, 1, 6, 7), n, b, k, rows, runs, together*p.count, lanes/runs)
		part := o.sumAxis(words, 5, 0, together*p.count)
		if sum != nil {
			part = Add(sum, part)
		}
		sum = part
	}
	return o.keep(sum)
}

// scaleAndZero decodes scales and zero points to float32; zero is nil where codes are numbers around 0 themselves.
func (s side) scaleAndZero(x coded) (scale, zero *Node) {
	scale = s.scales.decodeScale(x.scales)
	switch {
	case x.zeros != nil:
		zero = s.scales.decodeZero(x.zeros, scale, s.bits)
	case s.packed():
		zero = gx.MulScalar(scale, -s.middle())
	}
	return scale, zero
}

// middle is the code that stands for 0 where codes are symmetric.
func (s side) middle() int { return 1 << (s.bits - 1) }

// perBlock repeats what belongs to token groups for each of their blocks: [groups, ..] -> [n, ..].
func perBlock(x *Node, n int) *Node {
	d := dims(x)
	groups := d[0]
	if groups == n {
		return x
	}
	wide := append([]int{groups, n / groups}, d[1:]...)
	return Reshape(gx.BroadcastToDims(Reshape(x, append([]int{groups, 1}, d[1:]...)...), wide...), append([]int{n}, d[1:]...)...)
}
