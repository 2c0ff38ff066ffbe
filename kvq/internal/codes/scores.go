package codes

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Scores are products of queries q [B, K, Q, D] float32 with the coded keys of a layer: [N, B, K,
// Q, 32] float32.
func (f Format) Scores(q *Node, x Blocks, o Sums) *Node {
	d := dims(q)
	n, b, k, rows, dim := dims(x.Codes)[0], d[0], d[1], d[2], d[3]
	l := f.Words()
	if !f.Packed {
		l = WordLayout{Parts: 1, Rows: dim}
	}
	h := k * l.Parts
	out := []int{n, b, h, rows, BlockTokens}
	parts := func(x *Node) *Node { // [m, B, K, Q, D] -> [m, B, H, Q, D/parts]
		m := dims(x)[0]
		return Reshape(TransposeAllAxes(Reshape(x, m, b, k, rows, l.Parts, l.Rows), 0, 1, 2, 4, 3, 5), m, b, h, rows, l.Rows)
	}
	scale, zero := f.Spec.ScaleAndZero(x.Scales, x.Zeros)
	weights := Reshape(q, 1, b, k, rows, dim)
	groups := 1 // of a part
	if f.PerChannel {
		// Scales belong to channels and go into the query: q·(scale·code + zero) = (q·scale)·code +
		// q·zero.
		m := dims(scale)[0]
		weights = Mul(gx.BroadcastToDims(weights, m, b, k, rows, dim), gx.BroadcastToDims(Reshape(scale, m, b, k, 1, dim), m, b, k, rows, dim))
		weights = perBlock(weights, n)
	} else {
		groups = max(1, f.Groups()/l.Parts)
	}
	weights = parts(weights)
	m := dims(weights)[0]
	sums := make([]*Node, groups)
	for _, p := range f.planesOf(x.Codes, func(words *Node) *Node { return words }) {
		full := []int{n, b, h, rows, p.count, BlockTokens}
		w := Mul(weights, gx.BroadcastToDims(Reshape(p.factors, 1, 1, 1, 1, l.Rows), m, b, h, rows, l.Rows))
		w = Reshape(w, m, b, h, rows, p.count, l.Rows/p.count)
		words := sumFields(p.fields, func(i int, field *Node) (*Node, *Node) {
			return ExpandAndBroadcast(field, full, []int{3}), gx.BroadcastToDims(SliceAxis(w, 5, AxisElem(i)), full...)
		})
		for g := range sums {
			part := o.SumAxis(words, 4, g*p.count/groups, (g+1)*p.count/groups)
			if sums[g] != nil {
				part = Add(sums[g], part)
			}
			sums[g] = part
		}
	}
	if f.PerChannel {
		sum := o.parts(o.Keep(sums[0]), l.Parts)
		zeros := TransposeAllAxes(DotGeneral(q, []int{3}, []int{0, 1}, zero, []int{3}, []int{1, 2}), 3, 0, 1, 2) // [groups, B, K, Q]
		return Add(sum, gx.BroadcastToDims(Reshape(perBlock(zeros, n), n, b, k, rows, 1), n, b, k, rows, BlockTokens))
	}
	// Scales belong to tokens and multiply the sum over each group of channels.
	ofPart := func(x *Node) *Node { // [N, B, K, D/G, 32] -> [N, B, H, groups, 32]
		if own := f.Groups(); own < l.Parts {
			x = Reshape(x, n, b, k, own, 1, BlockTokens)
			x = gx.BroadcastToDims(x, n, b, k, own, l.Parts/own, BlockTokens)
		}
		return Reshape(x, n, b, h, groups, BlockTokens)
	}
	lanes := func(x *Node, g int) *Node { return gx.BroadcastToDims(SliceAxis(x, 3, AxisElem(g)), out...) }
	scale = ofPart(scale)
	var total *Node // sums of the query over each group
	if zero != nil {
		zero = ofPart(zero)
		total = gx.ReduceSum(Reshape(parts(Reshape(q, 1, b, k, rows, dim)), b, h, rows, groups, l.Rows/groups), 4)
	}
	for g := range sums {
		sums[g] = Mul(sums[g], lanes(scale, g))
		if zero != nil {
			column := Reshape(SliceAxis(total, 3, AxisElem(g)), 1, b, h, rows, 1)
			sums[g] = Add(sums[g], Mul(lanes(zero, g), gx.BroadcastToDims(column, out...)))
		}
	}
	return o.parts(o.Keep(gx.SumInPairs(sums)), l.Parts)
}

// parts adds the parts of a head: [N, B, K·parts, Q, 32] -> [N, B, K, Q, 32].
func (o Sums) parts(x *Node, parts int) *Node {
	if parts == 1 {
		return x
	}
	d := dims(x)
	return o.SumAxis(Reshape(x, d[0], d[1], d[2]/parts, parts, d[3], d[4]), 3, 0, parts)
}
