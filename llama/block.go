package llama

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// block is one decoder layer: x [B, t, hidden] -> [B, t, hidden].
//
//	x += attention(norm(x));  x += feedForward(norm(x))
//
// On several devices c and w are one device's share of heads and of the feed-forward width, x is
// the same on all of them. The last product of each half adds up what they have (linearOfAll).
func block(c Config, w weightNodes, x *Node, rope rotation, cache kvq.LayerCache) *Node {
	x = Add(x, attention(c, w, rmsNorm(x, w.vector(modelfile.AttnNorm), c.RMSNormEps), rope, cache))
	return Add(x, feedForward(w, rmsNorm(x, w.vector(modelfile.MLPNorm), c.RMSNormEps)))
}

// attention projects x [B, t, hidden] to queries, keys and values, rotates queries and keys, and
// leaves the rest to the cache. Query head h reads key/value head h / (H/K).
func attention(c Config, w weightNodes, x *Node, rope rotation, cache kvq.LayerCache) *Node {
	b, t := x.Shape().Dim(0), x.Shape().Dim(1)
	group := c.Heads / c.KVHeads

	qkv := biased(x, w[modelfile.QKV], w[modelfile.QKVBias].plain) // [B, t, K, group + 2, D]
	part := func(from, to int) *Node {
		return Slice(qkv, AxisRange(), AxisRange(), AxisRange(), AxisRange(from, to))
	}
	both := part(0, group+1) // queries and keys
	if w.has(modelfile.QNorm) {
		both = rmsNorm(both, headNorms(c, w), c.RMSNormEps)
	}
	rotated := rope.apply(both)
	queries := Slice(rotated, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, group))
	keys := Slice(rotated, AxisRange(), AxisRange(), AxisRange(), AxisRange(group, group+1))
	values := part(group+1, group+2)

	heads := func(x *Node, n int) *Node { // [B, t, K, n/K, D] -> [B, n, t, D]
		return TransposeAllAxes(Reshape(x, b, t, n, c.HeadDim), 0, 2, 1, 3)
	}
	cache.Append(heads(keys, c.KVHeads), heads(values, c.KVHeads))
	cache.Turn(rope.frequencies)
	cache.Weigh(func() *Node { return outputMetric(w[modelfile.Output], c.KVHeads, c.HeadDim) })
	mixed := cache.Attend(heads(queries, c.Heads)) // [B, H, t, D]
	mixed = Reshape(TransposeAllAxes(mixed, 0, 2, 1, 3), b, t, c.Heads*c.HeadDim)
	return linearOfAll(mixed, w[modelfile.Output])
}

// outputMetric is what an error of a value costs in the layer's output, squared: for each key/value
// head the sum of Wᵀ·W over the query heads that read it, [K, D, D] float32.
func outputMetric(output matrix, heads, dim int) *Node {
	if output.packed() {
		weight := Reshape(output.unpacked(), heads, -1, dim, output.out[0])
		return Dot(weight, weight).General([]int{1, 3}, []int{0}, []int{1, 3}, []int{0})
	}
	hidden := output.plain.Shape().Dim(0)
	weight := convert(Reshape(gx.Inside(output.plain), hidden, heads, -1, dim), dtypes.Float32)
	return Dot(weight, weight).General([]int{0, 2}, []int{1}, []int{0, 2}, []int{1})
}

// headNorms are the weights of the norms over heads: [H/K + 1, D], those of the queries once for
// each, then that of the key.
func headNorms(c Config, w weightNodes) *Node {
	group := c.Heads / c.KVHeads
	queries := gx.BroadcastToDims(Reshape(w.vector(modelfile.QNorm), 1, c.HeadDim), group, c.HeadDim)
	return Concatenate([]*Node{queries, Reshape(w.vector(modelfile.KNorm), 1, c.HeadDim)}, 0)
}

// feedForward is the gated feed-forward part (SwiGLU): x [B, t, hidden] -> [B, t, hidden].
//
//	down(silu(gate(x)) · up(x)), silu(y) = y / (1 + e⁻ʸ)
//
// Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6.
func feedForward(w weightNodes, x *Node) *Node {
	both := linear(x, w[modelfile.GateUp]) // [B, t, n, 2, intermediate/n], see modelfile.Tensor.Dims
	s := both.Shape()
	part := func(i int) *Node {
		return Reshape(Slice(both, AxisRange(), AxisRange(), AxisRange(), AxisElem(i)), s.Dim(0), s.Dim(1), s.Dim(2)*s.Dim(4))
	}
	gate := part(0)
	return linearOfAll(Mul(Mul(gate, Logistic(gate)), part(1)), w[modelfile.Down])
}
