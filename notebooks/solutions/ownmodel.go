package solutions

import (
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/kvq"
)

// CacheShape is what a cache has to know of a model. Heads of queries are not part of it: a cache
// holds keys and values alone.
func CacheShape(hidden, layers, heads, kvHeads, rows, tokens int) kvq.Shape {
	return kvq.Shape{Layers: layers, Batch: rows, KVHeads: kvHeads, HeadDim: hidden / heads,
		Capacity: tokens, DType: dtypes.Float16}
}

// KVHead is the key/value head that a query head reads: neighbours share one.
func KVHead(queryHead, heads, kvHeads int) int { return queryHead / (heads / kvHeads) }

// Surprise is the loss of the next token. The largest logit is subtracted first, so that no
// exponential is infinite.
func Surprise(logits []float64, next int) float64 {
	largest, sum := slices.Max(logits), 0.0
	for _, x := range logits {
		sum += math.Exp(x - largest)
	}
	return math.Log(sum) + largest - logits[next]
}

// WithCache is a layer's attention with a cache, for a model whose tokens come before its heads.
func WithCache(cache kvq.LayerCache, queries, keys, values *graph.Node) *graph.Node {
	headsFirst := func(x *graph.Node) *graph.Node { return graph.Transpose(x, 1, 2) } // and back
	cache.Append(headsFirst(keys), headsFirst(values))
	return headsFirst(cache.Attend(headsFirst(queries)))
}
