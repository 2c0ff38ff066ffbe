package main

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/attention/pos"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/zoo/transformer"
	"github.com/kvqbook/kvqbook/kvq"
)

// Sizes of the model. Its weights are drawn at random: what matters here is that they are GoMLX's.
const (
	vocabulary = 256
	layerCount = 2
	heads      = 8
	kvHeads    = 4
	headDim    = 32
	ropeBase   = 10000
)

// newModel is GoMLX's own transformer, in a scope that is new to each graph.
func newModel(scope *model.Scope) *transformer.Model {
	return transformer.New(scope).WithVocabSize(vocabulary).WithEmbedDim(heads * headDim).WithNumLayers(layerCount).
		WithNumHeads(heads).WithNumKVHeads(kvHeads).WithHeadDim(headDim).WithFFNDim(512).WithRoPE(ropeBase)
}

// uncached is the model as GoMLX runs it, without a cache: tokens [B, T] -> logits
// [B, T, vocabulary].
func uncached(scope *model.Scope, tokens *graph.Node) *graph.Node {
	return newModel(scope).Logits(tokens, transformer.CallOptions{})
}

// cached is the same model with the attention handed to a cache: t new tokens [B, t] -> logits
// [B, t, vocabulary]. Its layers find the weights that GoMLX's transformer made, by the names of
// their scopes.
func cached(scope *model.Scope, cache kvq.Cache, tokens *graph.Node) *graph.Node {
	m := newModel(scope)
	// GoMLX v0.28.16's rotary embedding takes one list of positions for all rows, so rows are
	// without padding here.
	positions := graph.Reshape(graph.Slice(cache.Positions(tokens.Shape().Dim(1)), graph.AxisElem(0)), -1)
	x := m.EmbedTokens(tokens)
	for layer := range layerCount {
		scope := scope.In("layer_%d", layer)
		x = graph.Add(x, attend(scope.In("attn").In("MultiHeadAttention"), cache.Layer(layer), x, positions))
		x = norm.LayerNorm(scope.In("norm1"), x, -1).Epsilon(m.NormEpsilon).Done()
		inner := activation.Apply(m.Activation, layers.Dense(scope.In("ff1"), x, m.UseBias, m.FFNDim))
		x = graph.Add(x, layers.Dense(scope.In("ff2"), inner, m.UseBias, m.EmbedDim))
		x = norm.LayerNorm(scope.In("norm2"), x, -1).Epsilon(m.NormEpsilon).Done()
	}
	cache.Advance()
	return m.LogitsFromEmbeddings(x)
}

// attend is a layer's attention: GoMLX's projections and rotary embedding, and between them the
// cache.
func attend(scope *model.Scope, cache kvq.LayerCache, x, positions *graph.Node) *graph.Node {
	query := layers.Dense(scope.In("query"), x, true, heads, headDim) // [B, t, H, D]
	key := layers.Dense(scope.In("key"), x, true, kvHeads, headDim)
	value := layers.Dense(scope.In("value"), x, true, kvHeads, headDim)
	query, key = pos.NewRoPE(ropeBase).EncodeQK(query, key, positions, 1)

	headsFirst := func(n *graph.Node) *graph.Node { return graph.TransposeAllAxes(n, 0, 2, 1, 3) } // and back
	cache.Append(headsFirst(key), headsFirst(value))
	out := headsFirst(cache.Attend(headsFirst(query)))

	d := x.Shape().Dimensions
	return layers.Dense(scope.In("output"), graph.Reshape(out, d[0], d[1], heads*headDim), true, d[2])
}
