package kvq

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
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
func Rotate(x *Node) *Node { return numbers.Rotate(x) }

// Hadamard returns the matrix of [Rotate] for D = dim: orthonormal and symmetric. D = 2^k·m with m
// odd gives m blocks of size 2^k on the diagonal (80 = 5 blocks of 16, 96 = 3 of 32); inside a
// block, H[i][j] = ±1/sqrt(2^k), negative where i and j share an odd number of bits (Sylvester's
// construction).
func Hadamard(dim int) [][]float32 { return numbers.Hadamard(dim) }
