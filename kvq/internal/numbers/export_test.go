package numbers

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// What tests look at apart.
var (
	RoundTo          = roundTo
	DivideByConstant = divideByConstant
	ToByteScale      = toByteScale
	FromByteScale    = fromByteScale
	SolveHQQ         = solveHQQ
)

// LargestByteScale is the largest scale that a byte holds.
var LargestByteScale = byteScale.largest

// RoundUp and RoundDown round float32 to numbers of dtype.
func RoundUp(x *Node, dtype dtypes.DType) *Node   { return formatOf(dtype).roundUp(x) }
func RoundDown(x *Node, dtype dtypes.DType) *Node { return formatOf(dtype).roundDown(x) }

func formatOf(dtype dtypes.DType) narrow {
	f, _ := narrowFormat(dtype)
	return f
}

// QuantizeWeighted is [LeastSquares] in float32 where weight multiplies the squares.
func QuantizeWeighted(x *Node, axis, bits int, weight *Node) (codes, scale, zero *Node) {
	return quantizeStored(x, axis, bits, nil, ScaleFloat32, searchRange(weight))
}

// BestCosts are the errors of groups of x along axis with the candidates that [Unbiased] takes,
// found in both ways. Where two candidates are as good as each other, rounding chooses.
func BestCosts(x *Node, axis, bits int, keys bool) (atOnce, inTurn *Node) {
	f, _ := fittingOf(x, axis, bits, IsFinite(x))
	c := cutsOf(bits, f.searched().size, keys)
	return f.cost(c, f.atOnce(c, keys), keys), f.cost(c, f.inTurn(c, keys), keys)
}
