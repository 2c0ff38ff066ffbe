// Package decoder is a small transformer made of GoMLX's layers, with and without a key/value cache
// of package kvq. What the cache added are the lines that end in "// kvq"; all else was there
// before.
package decoder

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/kvq" // kvq
)

// Model is a decoder as in GPT-2, with heads that share keys and values as in Llama 2.
type Model struct {
	Vocabulary, Positions  int // V, and the most tokens of a text
	Layers, Heads, KVHeads int // KVHeads divides Heads
	HeadDim                int // D
}

// Logits is the model without a cache: the next tokens' logits [B, T, V] of texts ids [B, T]
// (int32).
func (m Model) Logits(scope *model.Scope, ids *Node) *Node {
	positions := Iota(ids.Graph(), ids.Shape(), 1)
	return m.decode(scope, ids, positions, func(layer int, queries, keys, values *Node) *Node {
		return m.attend(queries, keys, values)
	})
}

// Step is the model with a cache: a kvq.Step.
func (m Model) Step(scope *model.Scope, cache kvq.Cache, inputs []*Node) []*Node { // kvq
	ids := inputs[0]                                                                               // kvq
	positions := cache.Positions(ids.Shape().Dim(1))                                               // kvq
	logits := m.decode(scope, ids, positions, func(layer int, queries, keys, values *Node) *Node { // kvq
		cache.Layer(layer).Append(keys, values)   // kvq
		return cache.Layer(layer).Attend(queries) // kvq
	}) // kvq
	cache.Advance()        // kvq
	return []*Node{logits} // kvq
} // kvq

// Shape is what a cache has to know of the model.
func (m Model) Shape(batch, capacity int) kvq.Shape { // kvq
	return kvq.Shape{Layers: m.Layers, Batch: batch, KVHeads: m.KVHeads, HeadDim: m.HeadDim, Capacity: capacity, DType: dtypes.Float32} // kvq
} // kvq

// decode is the model around attention: tokens ids [B, T] at positions [B, T] to logits [B, T, V].
// attend takes the queries [B, H, T, D] of a layer, and its keys and values [B, K, T, D], to
// [B, H, T, D].
func (m Model) decode(scope *model.Scope, ids, positions *Node, attend func(layer int, queries, keys, values *Node) *Node) *Node {
	width := m.Heads * m.HeadDim
	x := Add(embed(scope.In("tokens"), ids, m.Vocabulary, width), embed(scope.In("positions"), positions, m.Positions, width))
	for i := range m.Layers {
		scope := scope.In("layer_%d", i)
		h := norm.LayerNorm(scope.In("attention_norm"), x, -1).Done()
		h = attend(i, m.heads(scope.In("queries"), h, m.Heads), m.heads(scope.In("keys"), h, m.KVHeads), m.heads(scope.In("values"), h, m.KVHeads))
		h = Reshape(Transpose(h, 1, 2), x.Shape().Dimensions...)
		x = Add(x, layers.Dense(scope.In("out"), h, true, width))
		h = norm.LayerNorm(scope.In("ff_norm"), x, -1).Done()
		h = activation.Gelu(layers.Dense(scope.In("up"), h, true, 4*width))
		x = Add(x, layers.Dense(scope.In("down"), h, true, width))
	}
	x = norm.LayerNorm(scope.In("last_norm"), x, -1).Done()
	return layers.Dense(scope.In("logits"), x, false, m.Vocabulary)
}

// embed looks ids [B, T] up in a table of size vectors: [B, T, width].
func embed(scope *model.Scope, ids *Node, size, width int) *Node {
	return layers.Embedding(scope, InsertAxes(ids, -1), dtypes.Float32, size, width)
}

// heads projects x [B, T, width] to n heads: [B, n, T, D].
func (m Model) heads(scope *model.Scope, x *Node, n int) *Node {
	return Transpose(layers.Dense(scope, x, true, n, m.HeadDim), 1, 2)
}

// attend is causal attention of a whole text over itself.
func (m Model) attend(queries, keys, values *Node) *Node {
	shape := queries.Shape()
	b, t, group := shape.Dim(0), shape.Dim(2), m.Heads/m.KVHeads
	repeat := func(x *Node) *Node { // a head for each query head
		x = BroadcastToDims(InsertAxes(x, 2), b, m.KVHeads, group, t, m.HeadDim)
		return Reshape(x, b, m.Heads, t, m.HeadDim)
	}
	scores := MulScalar(Einsum("bhtd,bhsd->bhts", queries, repeat(keys)), 1/math.Sqrt(float64(m.HeadDim)))
	causal := LowerTriangular(queries.Graph(), t)
	causal = BroadcastToDims(Reshape(causal, 1, 1, t, t), scores.Shape().Dimensions...)
	return Einsum("bhts,bhsd->bhtd", MaskedSoftmax(scores, causal, -1), repeat(values))
}
