package codes

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// WeightedSum are sums of the coded values of a layer by weights w [N, B, K, Q, 32] float32: [B, K,
// Q, D] float32.
func (f Format) WeightedSum(w *Node, x Blocks, o Sums) *Node {
	d := dims(w)
	n, b, k, rows := d[0], d[1], d[2], d[3]
	dim := dims(x.Codes)[4]
	scale, zero := f.Spec.ScaleAndZero(x.Scales, x.Zeros)
	if f.PerChannel {
		sums := f.sumBlocks(Reshape(w, n, b, k, rows, 1, BlockTokens), x.Codes, 1, o) // [N, B, K, Q, 1, D]
		groups := dims(scale)[0]
		ofChannel := func(x *Node) *Node {
			return gx.BroadcastToDims(perBlock(Reshape(x, groups, b, k, 1, dim), n), n, b, k, rows, dim)
		}
		total := gx.BroadcastToDims(Reshape(gx.ReduceSum(w, 4), n, b, k, rows, 1), n, b, k, rows, dim)
		sum := Mul(Reshape(sums, n, b, k, rows, dim), ofChannel(scale))
		return o.Blocks(o.Keep(Add(sum, Mul(total, ofChannel(zero)))))
	}
	groups := f.Groups()
	full := []int{n, b, k, rows, groups, BlockTokens}
	ofToken := func(x *Node) *Node { return gx.BroadcastToDims(Reshape(x, n, b, k, 1, groups, BlockTokens), full...) }
	each := gx.BroadcastToDims(Reshape(w, n, b, k, rows, 1, BlockTokens), full...)
	// One query a head: two blocks at a time, which halves what is written. With more, the weights
	// would no longer fit the registers.
	atOnce := 1
	if rows == 1 && o.Wanted() {
		atOnce = commonFactor(n, 2)
	}
	sum := gx.ReduceSum(f.sumBlocks(Mul(each, ofToken(scale)), x.Codes, atOnce, o), 0) // [B, K, Q, D/G, G]
	if zero != nil {
		zeros := gx.ReduceSum(o.Blocks(Mul(each, ofToken(zero))), 4) // [B, K, Q, D/G]
		sum = Add(sum, gx.BroadcastToDims(Reshape(zeros, b, k, rows, groups, 1), dims(sum)...))
	}
	return Reshape(sum, b, k, rows, dim)
}

// sumBlocks sums the codes of each block by weights: weights [N, B, K, Q, S, 32] for S runs of
// lanes -> [N/atOnce, B, K, Q, S, D/S].
func (f Format) sumBlocks(weights, codes *Node, atOnce int, o Sums) *Node {
	w, lanes := dims(weights), dims(codes)[4]
	n, b, k, rows, runs := w[0]/atOnce, w[1], w[2], w[3], w[4]
	var sum *Node
	for _, p := range f.planesOf(codes, 5, func(x *Node) *Node {
		x = Reshape(x, n, atOnce, b, k, dims(x)[3], runs, lanes/runs)
		if runs == 1 {
			return Reshape(x, n, atOnce, b, k, runs, dims(x)[4], lanes)
		}
		return TransposeAllAxes(x, 0, 1, 2, 3, 5, 4, 6)
	}) {
		full := []int{n, atOnce, b, k, rows, runs, p.count, lanes / runs}
		scaled := o.Keep(Mul(weights, gx.BroadcastToDims(Reshape(p.factors, 1, 1, 1, 1, 1, BlockTokens), w...)))
		scaled = Reshape(scaled, n, atOnce, b, k, rows, runs, p.count, BlockTokens/p.count)
		words := sumFields(p.fields, func(i int, field *Node) (*Node, *Node) {
			return ExpandAndBroadcast(field, full, []int{4}),
				gx.BroadcastToDims(SliceAxis(scaled, 7, AxisElem(i)), full...)
		})
		words = Reshape(TransposeAllAxes(words, 0, 2, 3, 4, 5, 1, 6, 7), n, b, k, rows, runs, atOnce*p.count, lanes/runs)
		part := o.SumAxis(words, 5, 0, atOnce*p.count)
		if sum != nil {
			part = Add(sum, part)
		}
		sum = part
	}
	return o.Keep(sum)
}
