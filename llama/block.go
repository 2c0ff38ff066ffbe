package llama

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/kvq"
)

// blockNodes are the packed parameters of one block, as nodes; see packedLayer for the layout.
type blockNodes struct {
	attnNorm, mlpNorm    *Node
	qkv, o, gateUp, down matrix
}

// parts are the nodes of w, one after the other.
func (w *blockNodes) parts() []**Node {
	list := []**Node{&w.attnNorm, &w.mlpNorm}
	for _, m := range []*matrix{&w.qkv, &w.o, &w.gateUp, &w.down} {
		for _, n := range []**Node{&m.plain, &m.codes, &m.scale, &m.min} {
			if *n != nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// nodes are the parameters as a list.
func (w blockNodes) nodes() []*Node {
	var list []*Node
	for _, n := range w.parts() {
		list = append(list, *n)
	}
	return list
}

// with has other nodes in their places.
func (w blockNodes) with(nodes []*Node) blockNodes {
	for i, n := range w.parts() {
		*n = nodes[i]
	}
	return w
}

// block is one decoder layer: x [B, t, hidden] -> [B, t, hidden].
//
//	x += attention(norm(x));  x += feedForward(norm(x))
func (c Config) block(w blockNodes, x *Node, turn rotation, cache kvq.LayerCache) *Node {
	x = Add(x, c.attention(w, rmsNorm(x, inside(w.attnNorm), c.RMSNormEps), turn, cache))
	return Add(x, feedForward(w, rmsNorm(x, inside(w.mlpNorm), c.RMSNormEps)))
}

// attention projects x [B, t, hidden] to queries, keys and values, turns queries and keys, and leaves the rest to the
// cache. Query head h reads key/value head h / (H/K).
func (c Config) attention(w blockNodes, x *Node, turn rotation, cache kvq.LayerCache) *Node {
	b, t := x.Shape().Dim(0), x.Shape().Dim(1)
	group := c.Heads / c.KVHeads

	qkv := linear(x, w.qkv) // [B, t, K, group + 2, D]
	part := func(from, to int) *Node {
		return Slice(qkv, AxisRange(), AxisRange(), AxisRange(), AxisRange(from, to))
	}
	turned := turn.apply(part(0, group+1)) // queries and keys
	queries := Slice(turned, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, group))
	keys := Slice(turned, AxisRange(), AxisRange(), AxisRange(), AxisRange(group, group+1))
	values := part(group+1, group+2)

	heads := func(x *Node, n int) *Node { // [B, t, K, n/K, D] -> [B, n, t, D]
		return TransposeAllAxes(Reshape(x, b, t, n, c.HeadDim), 0, 2, 1, 3)
	}
	cache.Append(heads(keys, c.KVHeads), heads(values, c.KVHeads))
	mixed := cache.Attend(heads(queries, c.Heads)) // [B, H, t, D]
	mixed = Reshape(TransposeAllAxes(mixed, 0, 2, 1, 3), b, t, c.Heads*c.HeadDim)
	return linear(mixed, w.o)
}

// feedForward is the gated feed-forward part (SwiGLU): x [B, t, hidden] -> [B, t, hidden].
//
//	down(silu(gate(x)) · up(x)), silu(y) = y / (1 + e⁻ʸ)
//
// Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6.
func feedForward(w blockNodes, x *Node) *Node {
	both := linear(x, w.gateUp) // [B, t, n, 2, intermediate/n], n: devices
	s := both.Shape()
	part := func(i int) *Node {
		return Reshape(Slice(both, AxisRange(), AxisRange(), AxisRange(), AxisElem(i)), s.Dim(0), s.Dim(1), s.Dim(2)*s.Dim(4))
	}
	gate := part(0)
	return linear(Mul(Mul(gate, Logistic(gate)), part(1)), w.down)
}
