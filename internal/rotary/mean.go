// Package rotary knows how rotary embeddings turn the metrics of queries.
package rotary

import (
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// Mean is the mean of R·metric·Rᵀ over the rotations R of positions 0 to positions-1: metric [...,
// D, D], a mean of q·qᵀ, float32. frequencies are the D/2 angles by which the pairs (i, i + D/2) of
// a vector are turned from one position to the next.
//
// Pair i is a complex number z_i = x_i + j·x_{i+D/2}, which position p turns by p·f_i. So the mean
// of z_i·z̄_k is turned by p·(f_i - f_k) and that of z_i·z_k by p·(f_i + f_k), and the mean over
// positions is a factor for each of them.
func Mean(metric *Node, frequencies []float32, positions int) *Node {
	half, g := len(frequencies), metric.Graph()
	full := metric.Shape().Dimensions
	before := len(full) - 2
	quarterDims := append(slices.Clone(full[:before]), half, half)
	turned := func(sign float64) (re, im *Node) {
		cos, sin := make([]float32, half*half), make([]float32, half*half)
		for i, f := range frequencies {
			for k, h := range frequencies {
				c, s := meanTurn(float64(f)+sign*float64(h), positions)
				cos[i*half+k], sin[i*half+k] = float32(c), float32(s)
			}
		}
		ones := slices.Repeat([]int{1}, before)
		wide := func(x []float32) *Node {
			return gx.BroadcastToDims(Reshape(Const(g, x), append(ones, half, half)...), quarterDims...)
		}
		return wide(cos), wide(sin)
	}
	quarter := func(row, column int) *Node {
		axes := slices.Repeat([]SliceAxisSpec{AxisRange()}, before)
		return Slice(metric, append(axes, AxisRange(row*half, (row+1)*half), AxisRange(column*half, (column+1)*half))...)
	}
	aa, ab, ba, bb := quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)
	// of z·z̄ and of z·z, real and imaginary parts
	hr, hi := Add(aa, bb), Sub(ba, ab)
	sr, si := Sub(aa, bb), Add(ab, ba)
	cos, sin := turned(-1)
	hr, hi = Sub(Mul(hr, cos), Mul(hi, sin)), Add(Mul(hr, sin), Mul(hi, cos))
	cos, sin = turned(1)
	sr, si = Sub(Mul(sr, cos), Mul(si, sin)), Add(Mul(sr, sin), Mul(si, cos))
	return gx.MulScalar(Concatenate([]*Node{
		Concatenate([]*Node{Add(hr, sr), Sub(si, hi)}, -1),
		Concatenate([]*Node{Add(si, hi), Sub(hr, sr)}, -1),
	}, -2), 0.5)
}

// meanTurn is the mean of cos(p·angle) and of sin(p·angle) over p from 0 to n-1: a geometric
// series.
func meanTurn(angle float64, n int) (cos, sin float64) {
	s := math.Sin(angle / 2)
	if math.Abs(s) < 1e-9 {
		return 1, 0
	}
	size := math.Sin(float64(n)*angle/2) / (float64(n) * s)
	middle := float64(n-1) * angle / 2
	return size * math.Cos(middle), size * math.Sin(middle)
}
