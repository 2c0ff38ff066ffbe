package llama

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/gx"
)

// rotation holds the cosines and sines of one step, the same for all layers: [B, t, 1, 1, D/2]
// float32. frequencies are the angles from one position to the next.
type rotation struct {
	cos, sin    *Node
	frequencies []float32
}

// newRotation computes them for positions [B, t] int32.
func newRotation(positions *Node, frequencies []float32) rotation {
	s, half := positions.Shape(), len(frequencies)
	b, t := s.Dim(0), s.Dim(1)
	dims := []int{b, t, 1, 1, half}
	angle := Mul(
		gx.BroadcastToDims(Reshape(ConvertDType(positions, dtypes.Float32), b, t, 1, 1, 1), dims...),
		gx.BroadcastToDims(Reshape(Const(positions.Graph(), frequencies), 1, 1, 1, 1, half), dims...))
	return rotation{cos: Cos(angle), sin: Sin(angle), frequencies: frequencies}
}

// apply rotates the pairs (i, i + D/2) of each head vector: x [B, t, K, n, D] -> the same shape and
// dtype. The arithmetic is float32.
//
//	x[i]·cos − x[i+D/2]·sin,  x[i+D/2]·cos + x[i]·sin
func (r rotation) apply(x *Node) *Node {
	s := x.Shape()
	half := r.cos.Shape().Dim(-1)
	if x.Rank() != 5 || s.Dim(4) != 2*half {
		exceptions.Panicf("llama.rotation.apply: x %s, want [B, t, K, n, %d]", s, 2*half)
	}
	wide := convert(x, dtypes.Float32)
	first := Slice(wide, AxisRange(), AxisRange(), AxisRange(), AxisRange(), AxisRange(0, half))
	second := Slice(wide, AxisRange(), AxisRange(), AxisRange(), AxisRange(), AxisRange(half))
	cos := gx.BroadcastToDims(r.cos, first.Shape().Dimensions...)
	sin := gx.BroadcastToDims(r.sin, first.Shape().Dimensions...)
	rotated := Concatenate([]*Node{
		Sub(Mul(first, cos), Mul(second, sin)),
		Add(Mul(second, cos), Mul(first, sin)),
	}, -1)
	return convert(rotated, x.DType())
}
