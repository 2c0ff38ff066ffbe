package kvq

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Products with codes that are never unpacked into memory.
//
// XLA's GPU compiler makes one kernel of a sum over the rows of a block: it loads bytes, masks, converts, multiplies and adds. Bits are not
// shifted down: a code at bits k..k+w-1 of its byte is masked and counts 2^k too much, which the row's weight takes back. What shares a
// byte is added before the sum, so that every byte is loaded once.
//
// On a CPU the same sum is not vectorised well, and tiles that are unpacked in the processor's cache are as fast or faster
// (docs/benchmarks.md); there [quantizedCache.attendTiles] is used.

// sumRows multiplies rows by weights and sums: out[lane] = Σ_row weight[row]·code[row, lane], for rows from up to to.
//
//	weights [N or 1, B, K, Q, S, R] float32: R = to-from; the lanes fall into S runs with weights of their own
//	codes   [N, B, K, bytes, lanes]
//	result  [N, B, K, Q, S, lanes/S]
func (s side) sumRows(weights, codes *Node, rows, from, to int) *Node {
	w, c := dims(weights), dims(codes)
	n, b, k, q, runs, lanes := c[0], c[1], c[2], w[3], w[4], c[4]/w[4]
	weights = TransposeAllAxes(weights, 0, 1, 2, 3, 5, 4) // [N or 1, B, K, Q, R, S]
	// product multiplies rows first.. (counted from row 0) with the codes that x holds for them, [N, B, K, m, lanes].
	product := func(x *Node, first, m int, factor float64) *Node {
		full := []int{n, b, k, q, m, runs, lanes}
		part := Reshape(SliceAxis(weights, 4, AxisRange(first-from, first-from+m)), w[0], b, k, q, m, runs, 1)
		values := Reshape(x, n, b, k, 1, m, runs, lanes)
		return Mul(BroadcastToDims(values, full...), BroadcastToDims(gx.MulScalar(part, factor), full...))
	}
	if !s.packed() {
		x := SliceAxis(codes, 3, AxisRange(from, to))
		return gx.ReduceSum(product(s.number(x), from, to-from, 1), 4)
	}
	var sum *Node
	add := func(x *Node) {
		if sum == nil {
			sum = x
		} else {
			sum = Add(sum, x)
		}
	}
	firstByte, low := 0, 0
	for _, width := range planes(s.bits) {
		bytes := rows * width / 8
		whole := from%bytes == 0 && to%bytes == 0 // then all bits of a byte are of the same kind, and are added before the sum
		var together *Node
		for k := from / bytes; k*bytes < to; k++ {
			first, last := max(k*bytes, from), min((k+1)*bytes, to)
			x := SliceAxis(codes, 3, AxisRange(firstByte+first-k*bytes, firstByte+last-k*bytes))
			if width < 8 {
				x = BitwiseAnd(x, ConstAs(x, uint8((1<<width-1)<<(width*k))))
			}
			y := product(ConvertDType(x, dtypes.Float32), first, last-first, math.Ldexp(1, low-width*k))
			switch {
			case !whole:
				add(gx.ReduceSum(y, 4))
			case together == nil:
				together = y
			default:
				together = Add(together, y)
			}
		}
		if together != nil {
			add(gx.ReduceSum(together, 4))
		}
		firstByte, low = firstByte+bytes, low+width
	}
	return sum
}

// scores are products of queries q [B, K, Q, D] float32 with the coded keys of a layer: [N, B, K, Q, 32] float32.
func (s side) scores(q *Node, x coded) *Node {
	c, d := dims(x.codes), dims(q)
	n, b, k, rows, dim := c[0], c[1], c[2], d[2], d[3]
	out := []int{n, b, k, rows, blockTokens}
	scale, zero := s.scaleAndZero(x)
	if s.axis == PerChannel {
		// Scales belong to channels and go into the query: q·(scale·code + zero) = (q·scale)·code + q·zero.
		groups := dims(scale)[0]
		weights := Mul(BroadcastToDims(Reshape(q, 1, b, k, rows, dim), groups, b, k, rows, dim),
			BroadcastToDims(Reshape(scale, groups, b, k, 1, dim), groups, b, k, rows, dim))
		sum := Reshape(s.sumRows(Reshape(perBlock(weights, n), n, b, k, rows, 1, dim), x.codes, dim, 0, dim), out...)
		zeros := TransposeAllAxes(DotGeneral(q, []int{3}, []int{0, 1}, zero, []int{3}, []int{1, 2}), 3, 0, 1, 2) // [groups, B, K, Q]
		return Add(sum, BroadcastToDims(Reshape(perBlock(zeros, n), n, b, k, rows, 1), out...))
	}
	// Scales belong to tokens and multiply the sum over each group of channels.
	groups := s.groups(dim)
	size := dim / groups
	ofToken := func(x *Node, g int) *Node {
		return BroadcastToDims(Reshape(SliceAxis(x, 3, AxisElem(g)), n, b, k, 1, blockTokens), out...)
	}
	var sum *Node
	for g := range groups {
		part := SliceAxis(q, 3, AxisRange(g*size, (g+1)*size)) // [B, K, Q, size]
		term := Mul(ofToken(scale, g), Reshape(s.sumRows(Reshape(part, 1, b, k, rows, 1, size), x.codes, dim, g*size, (g+1)*size), out...))
		if zero != nil {
			total := BroadcastToDims(Reshape(gx.ReduceSum(part, 3), 1, b, k, rows, 1), out...)
			term = Add(term, Mul(ofToken(zero, g), total))
		}
		if sum == nil {
			sum = term
		} else {
			sum = Add(sum, term)
		}
	}
	return sum
}

// weighedSum are sums of the coded values of a layer by weights w [N, B, K, Q, 32] float32: [B, K, Q, D] float32.
func (s side) weighedSum(w *Node, x coded) *Node {
	d := dims(w)
	n, b, k, rows := d[0], d[1], d[2], d[3]
	dim := dims(x.codes)[4]
	scale, zero := s.scaleAndZero(x)
	if s.axis == PerChannel {
		groups := dims(scale)[0]
		ofChannel := func(x *Node) *Node {
			return BroadcastToDims(Reshape(x, groups, 1, b, k, 1, dim), groups, n/groups, b, k, rows, dim)
		}
		sums := s.sumRows(Reshape(w, n, b, k, rows, 1, blockTokens), x.codes, blockTokens, 0, blockTokens)
		sums = Mul(Reshape(sums, groups, n/groups, b, k, rows, dim), ofChannel(scale))
		total := BroadcastToDims(Reshape(gx.ReduceSum(w, 4), groups, n/groups, b, k, rows, 1), groups, n/groups, b, k, rows, dim)
		return gx.ReduceSum(Add(sums, Mul(total, ofChannel(zero))), 0, 1)
	}
	groups := s.groups(dim)
	ofToken := func(x *Node) *Node {
		return BroadcastToDims(Reshape(x, n, b, k, 1, groups, blockTokens), n, b, k, rows, groups, blockTokens)
	}
	each := BroadcastToDims(Reshape(w, n, b, k, rows, 1, blockTokens), n, b, k, rows, groups, blockTokens)
	sums := s.sumRows(Mul(each, ofToken(scale)), x.codes, blockTokens, 0, blockTokens) // [N, B, K, Q, D/G, G]
	sum := gx.ReduceSum(sums, 0)
	if zero != nil {
		zeros := gx.ReduceSum(Mul(each, ofToken(zero)), 0, 5) // [B, K, Q, D/G]
		sum = Add(sum, BroadcastToDims(Reshape(zeros, b, k, rows, groups, 1), dims(sum)...))
	}
	return Reshape(sum, b, k, rows, dim)
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
	return Reshape(BroadcastToDims(Reshape(x, append([]int{groups, 1}, d[1:]...)...), wide...), append([]int{n}, d[1:]...)...)
}
