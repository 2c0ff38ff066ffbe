package gx

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// OnDiagonal tells of each element of matrices [..., D, D] whether it lies on the diagonal.
func OnDiagonal(x *graph.Node) *graph.Node {
	square, rank := shapes.Make(dtypes.Int32, x.Shape().Dimensions...), x.Rank()
	return graph.Equal(graph.Iota(x.Graph(), square, rank-2), graph.Iota(x.Graph(), square, rank-1))
}

// DiagonalMean is the mean of what lies on the diagonals of matrices [..., D, D]: [..., 1, 1].
func DiagonalMean(x *graph.Node) *graph.Node {
	sum := ReduceSumAndKeep(graph.Where(OnDiagonal(x), x, ZerosLike(x)), -2, -1)
	return MulScalar(sum, 1/float64(x.Shape().Dim(-1)))
}
