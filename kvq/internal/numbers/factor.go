package numbers

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Factor is what [Feedback] needs of a metric: of M = L·P·Lᵀ, with a unit lower triangular L and a
// diagonal P, it is L without its diagonal. M is the metric in units of its mean diagonal, and
// damping more on the diagonal: the larger it is, the less is fed back.
//
//	metric   [B, K, D, D] float32, symmetric and not negative
//	damping  [B, 1, 1, 1] float32, above 0
//	factor   [B, K, D, D] float32; 0 where a metric is 0 or not finite
//
// It is Cholesky's method, column by column (Golub and Van Loan, Matrix Computations, section 4.2).
func Factor(metric, damping *Node) *Node {
	g, d := metric.Graph(), metric.Shape().Dimensions
	square := shapes.Make(dtypes.Int32, d...)
	mean := gx.DiagonalMean(metric)
	usable := And(IsFinite(mean), gx.GreaterThanScalar(mean, 0))
	m := Div(metric, Where(usable, mean, gx.OnesLike(mean)))
	m = Where(gx.OnDiagonal(m), Add(m, gx.BroadcastToDims(damping, d...)), m)
	var factor *Node
	if factorTaken(g, d[3]) {
		factor = factorByKernel(m)
	} else {
		factor = factorByLoop(m)
	}
	good := And(GreaterThan(Iota(g, square, 2), Iota(g, square, 3)), And(IsFinite(factor), gx.BroadcastToDims(usable, d...)))
	return Where(good, factor, gx.ZerosLike(factor))
}

// factorByLoop turns m [B, K, D, D] float32 into its factor. What is not below the diagonal is of
// no meaning.
func factorByLoop(m *Node) *Node {
	d := m.Shape().Dimensions
	out := gx.Loop([]*Node{gx.Scalar(m.Graph(), dtypes.Int32, 0), m},
		func(st []*Node) *Node { return gx.LessThanScalar(st[0], d[2]) },
		func(st []*Node) []*Node {
			at, m := st[0], st[1]
			zero := gx.Scalar(at.Graph(), dtypes.Int32, 0)
			column := gx.DynamicSlice(m, []*Node{zero, zero, zero, at}, []int{d[0], d[1], d[2], 1})
			row := gx.DynamicSlice(m, []*Node{zero, zero, at, zero}, []int{d[0], d[1], 1, d[3]})
			pivot := gx.DynamicSlice(m, []*Node{zero, zero, at, at}, []int{d[0], d[1], 1, 1})
			below := GreaterThan(Iota(at.Graph(), shapes.Make(dtypes.Int32, d[0], d[1], d[2], 1), 2), gx.BroadcastToDims(at, d[0], d[1], d[2], 1))
			column = Where(below, Div(column, gx.MaxScalar(pivot, tiny)), gx.ZerosLike(column))
			// What is left of the rows and columns behind this one; before it, columns of L stay.
			behind := GreaterThan(Iota(at.Graph(), shapes.Make(dtypes.Int32, d[0], d[1], 1, d[3]), 3), gx.BroadcastToDims(at, d[0], d[1], 1, d[3]))
			row = Where(behind, row, gx.ZerosLike(row))
			m = Sub(m, Mul(gx.BroadcastToDims(column, d...), gx.BroadcastToDims(row, d...)))
			return []*Node{gx.AddScalar(at, 1), DynamicUpdateSlice(m, column, []*Node{zero, zero, zero, at})}
		})
	return out[1]
}
