package exercise

import (
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/notebooks/solutions"
)

func TestCacheShape(t *testing.T) {
	tell(t,
		tried{"solution", CacheShape(solutions.CacheShape), ""},
		tried{"all heads", CacheShape(func(hidden, l, h, k, b, n int) kvq.Shape { return solutions.CacheShape(hidden, l, h, h, b, n) }),
			"with Llama-3.1-8B, 8 rows of 2,048 tokens KVHeads is 32, wanted 8. 1 of 3"},
		tried{"the whole width", CacheShape(func(hidden, l, _, k, b, n int) kvq.Shape { return solutions.CacheShape(hidden, l, 1, k, b, n) }),
			"with Llama-2-7B, one row of 4,096 tokens HeadDim is 4096, wanted 128"},
		tried{"32 bits", CacheShape(func(hidden, l, h, k, b, n int) kvq.Shape {
			s := solutions.CacheShape(hidden, l, h, k, b, n)
			s.DType = dtypes.Float32
			return s
		}), "DType is Float32, wanted float16"},
		tried{"stub", CacheShape(func(_, _, _, _, _, _ int) kvq.Shape { return kvq.Shape{} }), "Layers is 0, wanted 32"},
		tried{"refused", CacheShape(func(hidden, l, h, k, b, n int) kvq.Shape {
			s := solutions.CacheShape(hidden, l, h, k, b, n)
			s.SlidingWindow = -1
			return s
		}), "kvq.New refuses the shape"},
		tried{"panics", CacheShape(func(hidden, l, h, k, b, n int) kvq.Shape { return solutions.CacheShape(hidden, l, h/64, k, b, n) }), "panicked"},
	)
}

func TestKVHead(t *testing.T) {
	tell(t,
		tried{"solution", KVHead(solutions.KVHead), ""},
		tried{"in turns", KVHead(func(h, _, k int) int { return h % k }), "with query head 5 of 9 and 3 key/value heads the key/value head is 2, wanted 1"},
		tried{"rounded up", KVHead(func(h, n, k int) int { return (h + n/k - 1) / (n / k) }), "with query head 5 of 9 and 3 key/value heads the key/value head is 2, wanted 1"},
		tried{"stub", KVHead(func(_, _, _ int) int { return 0 }), "is 0, wanted 1"},
	)
}

func TestSurprise(t *testing.T) {
	naive := func(logits []float64, next int) float64 {
		sum := 0.0
		for _, x := range logits {
			sum += math.Exp(x)
		}
		return -math.Log(math.Exp(logits[next]) / sum)
	}
	tell(t,
		tried{"solution", Surprise(solutions.Surprise), ""},
		tried{"exponentials without bounds", Surprise(naive), "with logits so large that exp is infinite the loss is not a number"},
		tried{"in bits", Surprise(func(l []float64, n int) float64 { return solutions.Surprise(l, n) / math.Ln2 }), "with four equal logits the loss is 2, wanted 1.38629"},
		tried{"the probability", Surprise(func(l []float64, n int) float64 { return math.Exp(-solutions.Surprise(l, n)) }), "the loss is 0.25, wanted 1.38629"},
		tried{"stub", Surprise(func([]float64, int) float64 { return 0 }), "the loss is 0, wanted 1.38629"},
	)
}

func TestWithCache(t *testing.T) {
	heads := func(x *graph.Node) *graph.Node { return graph.Transpose(x, 1, 2) }
	tell(t,
		tried{"solution", WithCache(solutions.WithCache), ""},
		tried{"axes as the model has them", WithCache(func(c kvq.LayerCache, q, k, v *graph.Node) *graph.Node {
			c.Append(k, v)
			return c.Attend(q)
		}), "with 1 query heads and 1 key/value heads, the graph is refused"},
		tried{"not turned back", WithCache(func(c kvq.LayerCache, q, k, v *graph.Node) *graph.Node {
			return heads(solutions.WithCache(c, q, k, v))
		}), "with 2 query heads and 2 key/value heads, token 0, head 1 is off by"},
		tried{"keys and values exchanged", WithCache(func(c kvq.LayerCache, q, k, v *graph.Node) *graph.Node {
			return solutions.WithCache(c, q, v, k)
		}), "token 0, head 0 is off by"},
		tried{"asked before it was appended", WithCache(func(c kvq.LayerCache, q, k, v *graph.Node) *graph.Node {
			out := heads(c.Attend(heads(q)))
			c.Append(heads(k), heads(v))
			return out
		}), "the graph is refused"},
		tried{"stub", WithCache(func(_ kvq.LayerCache, q, _, _ *graph.Node) *graph.Node { return q }), "the graph is refused: kvq.Advance: nothing was appended"},
	)
}
