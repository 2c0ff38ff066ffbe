package numbers

import (
	"math"
	"math/bits"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Rotate rotates the last axis by the orthonormal Walsh-Hadamard matrix H of [Hadamard]: x·H. It
// spreads an outlier over all channels, so that the range of a group shrinks (QuaRot, arXiv
// 2404.00456, section 3).
//
//	x       [..., D], float32, float16 or bfloat16
//	result  the same shape and dtype, computed in float32
//
// H is symmetric, so Rotate(Rotate(x)) = x up to rounding, and a dot product stays as it is when
// both sides are rotated: scores of rotated queries with rotated keys are the scores, and an output
// of rotated values is rotated back by Rotate.
func Rotate(x *Node) *Node {
	dtype, dims := x.DType(), x.Shape().Dimensions
	last := len(dims) - 1
	n := hadamardBlock(dims[last])
	// The axes before stay apart, so that heads that lie on several devices stay where they are.
	split := append(slices.Clone(dims[:last]), dims[last]/n, n)
	signs, size := hadamardSigns(x.Graph(), n), 1/math.Sqrt(float64(n))
	// A product with the matrix: on XLA's CPU it took as long as the fast transform of log2(n)
	// rounds of sums and differences, and compiled in a third of the time.
	var rotated *Node
	if dtype != dtypes.Float32 && gx.OnGPU(x.Graph()) {
		// A GPU has units for products of 16 bits, exact where one side is 1 and -1.
		product := Dot(Reshape(x, split...), ConvertDType(signs, dtype)).WithAccumulatorDType(dtype).WithOutputDType(dtypes.Float32)
		rotated = gx.MulScalar(product.General([]int{last + 1}, nil, []int{0}, nil), size)
	} else {
		matrix := gx.MulScalar(ConvertDType(signs, dtypes.Float32), size)
		rotated = Dot(Reshape(ConvertDType(x, dtypes.Float32), split...), matrix).General([]int{last + 1}, nil, []int{0}, nil)
	}
	return ConvertDType(Reshape(rotated, dims...), dtype)
}

// Hadamard returns the matrix of [Rotate] for D = dim: orthonormal and symmetric. D = 2^k·m with m
// odd gives m blocks of size 2^k on the diagonal (80 = 5 blocks of 16, 96 = 3 of 32); inside a
// block, H[i][j] = ±1/sqrt(2^k), negative where i and j share an odd number of bits (Sylvester's
// construction).
func Hadamard(dim int) [][]float32 {
	n := hadamardBlock(dim)
	h := make([][]float32, dim)
	for i := range h {
		h[i] = make([]float32, dim)
		for j := i / n * n; j < i/n*n+n; j++ {
			h[i][j] = float32(1 / math.Sqrt(float64(n)))
			if bits.OnesCount(uint(i%n&(j%n)))%2 == 1 {
				h[i][j] = -h[i][j]
			}
		}
	}
	return h
}

// hadamardBlock is the largest power of two that divides dim.
func hadamardBlock(dim int) int { return dim & -dim }

// hadamardSigns makes the signs of the n×n matrix, int32, in the graph from bit counts, rather than
// as a constant of n² numbers in the program's text.
func hadamardSigns(g *Graph, n int) *Node {
	shape := shapes.Make(dtypes.Int32, n, n)
	shared := BitwiseAnd(Iota(g, shape, 0), Iota(g, shape, 1))
	for shift := 16; shift > 0; shift /= 2 {
		shared = BitwiseXor(shared, gx.ShiftRight(shared, shift))
	}
	return gx.SubScalar(gx.MulScalar(gx.AndScalar(shared, 1), -2), -1)
}
