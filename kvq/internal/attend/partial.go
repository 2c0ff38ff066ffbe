package attend

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Partial is attention over a part of the tokens, before it is divided by the sum of its weights:
// parts computed apart are merged exactly. It is the online softmax of FlashAttention (Dao et al.
// 2022, section 3.1). All float32, E elements of a value:
//
//	Max [B, K, Q, 1]     largest score of the part
//	Sum [B, K, Q, 1]     Σ exp(score - Max)
//	Out [B, K, Q, E]     Σ exp(score - Max) · value
type Partial struct{ Max, Sum, Out *Node }

// NewPartial makes a part of scores [B, K, Q, N] float32, the mask added. weightedSum maps the
// weights exp(score - max) [B, K, Q, N] to their weighted sum of values [B, K, Q, D] float32.
func NewPartial(scores *Node, weightedSum func(weights *Node) *Node) Partial {
	top := gx.ReduceMaxAndKeep(scores, -1)
	weights := Exp(Sub(scores, top))
	return Partial{Max: top, Sum: gx.ReduceSumAndKeep(weights, -1), Out: weightedSum(weights)}
}

// Merge joins two parts over different tokens.
func (p Partial) Merge(q Partial) Partial {
	top := Max(p.Max, q.Max)
	pScale, qScale := Exp(Sub(p.Max, top)), Exp(Sub(q.Max, top))
	return Partial{
		Max: top,
		Sum: Add(Mul(p.Sum, pScale), Mul(q.Sum, qScale)),
		Out: Add(Mul(p.Out, pScale), Mul(q.Out, qScale)),
	}
}

// Result divides by the sum: the attention output [B, K, Q, D] float32.
func (p Partial) Result() *Node { return Div(p.Out, p.Sum) }

// FoldQueries brings queries [B, H, t, D] to [B, K, Q, D], multiplied by scale: the H/K query heads
// of a key/value head and their t tokens become rows of one product.
func FoldQueries(queries *Node, kvHeads int, scale float64) *Node {
	s := queries.Shape()
	b, h, t, d := s.Dim(0), s.Dim(1), s.Dim(2), s.Dim(3)
	return gx.MulScalar(Reshape(queries, b, kvHeads, h/kvHeads*t, d), scale)
}

// UnfoldQueries is the way back: [B, K, Q, E] float32, E elements of a value, -> [B, H, t, E] in
// the dtype of like [B, H, t, D].
func UnfoldQueries(out, like *Node) *Node {
	d := dims(like)
	return ConvertDType(Reshape(out, d[0], d[1], d[2], dims(out)[3]), like.DType())
}

// Exact is attention over keys and values [B, K, N, D] in full precision, of queries [B, K, Q, D]
// that are scaled.
func (s Scores) Exact(q, keys, values *Node, seen Seen) Partial {
	scores := s.Finish(scoresOf(q, keys), seen, dims(q)[1], false)
	return NewPartial(scores, func(w *Node) *Node { return weightedSum(w, values) })
}

// scoresOf multiplies queries [B, K, Q, D] by keys [B, K, N, D]: [B, K, Q, N] float32.
func scoresOf(q, keys *Node) *Node {
	q = numbers.NarrowTo(q, keys.DType())
	return Dot(q, keys).WithOutputDType(dtypes.Float32).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
}

// weightedSum multiplies weights [B, K, Q, N] float32 by values [B, K, N, D]: [B, K, Q, D] float32.
// The weights are rounded to the dtype of the values first, as transformers does.
func weightedSum(weights, values *Node) *Node {
	weights = numbers.NarrowTo(weights, values.DType())
	return Dot(weights, values).WithOutputDType(dtypes.Float32).General([]int{3}, []int{0, 1}, []int{2}, []int{0, 1})
}

func dims(x *Node) []int { return x.Shape().Dimensions }
