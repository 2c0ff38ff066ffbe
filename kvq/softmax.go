package kvq

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// partial is attention over a part of the tokens, before it is divided by the sum of its weights: parts computed apart are merged
// exactly. The online softmax of FlashAttention (Dao et al. 2022, section 3.1). All float32:
//
//	max [B, K, Q, 1]     largest score of the part
//	sum [B, K, Q, 1]     Σ exp(score - max)
//	out [B, K, Q, D]     Σ exp(score - max) · value
//
// where Q = (H/K)·t counts the queries that share a key/value head.
type partial struct{ max, sum, out *Node }

// newPartial weighs values by scores: scores [B, K, Q, N] float32 with the mask added; weigh maps the weights exp(score - max)
// [B, K, Q, N] to their sum of values [B, K, Q, D] float32.
func newPartial(scores *Node, weigh func(weights *Node) *Node) partial {
	top := gx.ReduceMaxAndKeep(scores, -1)
	weights := Exp(Sub(scores, top))
	return partial{max: top, sum: gx.ReduceSumAndKeep(weights, -1), out: weigh(weights)}
}

// merge joins two parts over different tokens.
func (p partial) merge(q partial) partial {
	top := Max(p.max, q.max)
	pScale, qScale := Exp(Sub(p.max, top)), Exp(Sub(q.max, top))
	return partial{
		max: top,
		sum: Add(Mul(p.sum, pScale), Mul(q.sum, qScale)),
		out: Add(Mul(p.out, pScale), Mul(q.out, qScale)),
	}
}

// result divides by the sum: the attention output [B, K, Q, D] float32.
func (p partial) result() *Node { return Div(p.out, p.sum) }

// foldQueries brings queries [B, H, t, D] to [B, K, Q, D], scaled by 1/sqrt(D): the H/K query heads of a key/value head and their t
// tokens become rows of one product.
func foldQueries(queries *Node, kvHeads int) *Node {
	s := queries.Shape()
	b, h, t, d := s.Dim(0), s.Dim(1), s.Dim(2), s.Dim(3)
	return gx.MulScalar(Reshape(queries, b, kvHeads, h/kvHeads*t, d), 1/math.Sqrt(float64(d)))
}

// unfoldQueries is the way back: [B, K, Q, D] float32 -> [B, H, t, D] in the dtype of like [B, H, t, D].
func unfoldQueries(out, like *Node) *Node {
	return ConvertDType(Reshape(out, like.Shape().Dimensions...), like.DType())
}

// foldBias repeats a mask [B, t, N] for the heads: [B, 1, Q, N].
func foldBias(bias *Node, q int) *Node {
	b, t, n := bias.Shape().Dim(0), bias.Shape().Dim(1), bias.Shape().Dim(2)
	return Reshape(gx.BroadcastToDims(Reshape(bias, b, 1, t, n), b, q/t, t, n), b, 1, q, n)
}

// scoresOf multiplies queries [B, K, Q, D] by keys [B, K, N, D]: [B, K, Q, N] float32.
func scoresOf(q, keys *Node) *Node {
	return Dot(matchDType(q, keys), keys).WithOutputDType(dtypes.Float32).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
}

// weighedSum multiplies weights [B, K, Q, N] float32 by values [B, K, N, D]: [B, K, Q, D] float32. The weights are rounded to the dtype
// of the values first, as transformers does.
func weighedSum(weights, values *Node) *Node {
	return Dot(matchDType(weights, values), values).WithOutputDType(dtypes.Float32).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
}

// matchDType converts x to the dtype of like.
func matchDType(x, like *Node) *Node { return narrowTo(x, like.DType()) }

// narrowTo converts x to dtype; what is finite stays finite.
func narrowTo(x *Node, dtype dtypes.DType) *Node { return numbers.NarrowTo(x, dtype) }
