package kvq

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
)

// quantize makes codes, scales and zero points of values split into groups along axis, as the side's settings say.
//
//	x      [B, K, ...], the cache's dtype; valid nil, or booleans of x's shape
//	codes  the side's dtype, shape of x; scales, zeros: as stored, axis of size 1; zeros nil where the codes have no zero point
func (s side) quantize(x *Node, axis int, valid *Node) (codes, scales, zeros *Node) {
	switch {
	case s.code == Float8:
		codes, scales = quantizeFloat8(x, axis, valid, s.scales)
	case s.code == Int8:
		codes, scales = quantizeInt8(x, axis, valid, s.scales)
	case s.code == Symmetric:
		codes, scales = quantizeSymmetric(x, axis, s.bits, valid, s.scales)
	case s.hqq:
		// The stop rule sees one row: rows stay independent.
		var inRow []int
		for i := 1; i < x.Rank(); i++ {
			inRow = append(inRow, i)
		}
		codes, scales, zeros = quantizeHQQ(x, axis, s.bits, valid, inRow, s.scales)
	case s.fit == LeastSquares:
		codes, scales, zeros = quantizeStored(x, axis, s.bits, valid, s.scales, searchRange(nil))
	case s.fit == Unbiased:
		codes, scales, zeros = quantizeUnbiased(x, axis, s.bits, valid, s.scales, s.keys)
	case s.scales == "":
		codes, scales, zeros = quantizeMinMax(x, axis, s.bits, valid) // quanto, bit for bit
	default:
		codes, scales, zeros = quantizeStored(x, axis, s.bits, valid, s.scales, nil)
	}
	return codes, scales, zeros
}
