package llama

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// rmsNorm divides each vector of x [..., n] by its root mean square and scales it by weight [n], or
// by weights of their own along more of the last axes. The division is done in float32 and rounded
// to the dtype of x before weight is applied, as LlamaRMSNorm of transformers does.
//
//	weight · x / sqrt(mean(x²) + eps)
//
// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.
func rmsNorm(x, weight *Node, eps float64) *Node {
	wide := convert(x, dtypes.Float32)
	scale := Rsqrt(gx.AddScalar(gx.ReduceMeanAndKeep(Mul(wide, wide), -1), eps)) // [..., 1]
	return Mul(convert(Mul(wide, scale), x.DType()), ExpandLeftToRank(weight, x.Rank()))
}
