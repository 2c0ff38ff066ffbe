package llama

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// queryMetric is what an error of a key costs in the scores of queries, squared, as far as a
// layer's weights tell: for each key/value head the mean of q·qᵀ over the query heads that read it,
// [K, D, D] float32. The layer's input is taken as what a norm leaves of numbers that know nothing
// of one another, with variance 1, at positions 0 to positions-1.
func queryMetric(c Config, w weightNodes, frequencies []float32, positions int) *Node {
	group := c.Heads / c.KVHeads
	part := []SliceAxisSpec{AxisRange(), AxisRange(0, group)}
	var weight *Node // [K, H/K, D, hidden]
	if m := w[modelfile.QKV]; m.packed() {
		weight = Reshape(Transpose(m.unpacked(), 0, 1), append(append([]int{}, m.out...), -1)...)
	} else {
		weight = m.plain
	}
	weight = convert(Slice(weight, part...), dtypes.Float32)
	norm := convert(w.vector(modelfile.AttnNorm), dtypes.Float32)
	weight = Mul(weight, gx.BroadcastToDims(Reshape(norm, 1, 1, 1, -1), weight.Shape().Dimensions...))
	metric := Dot(weight, weight).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1}) // [K, H/K, D, D]
	dims := metric.Shape().Dimensions
	outer := func(x *Node) *Node { // [K, H/K, D] -> [K, H/K, D, D]
		return Mul(gx.BroadcastToDims(ExpandAxes(x, -1), dims...), gx.BroadcastToDims(ExpandAxes(x, -2), dims...))
	}
	if bias := w[modelfile.QKVBias].plain; bias != nil {
		metric = Add(metric, outer(convert(Slice(bias, part...), dtypes.Float32)))
	}
	if w.has(modelfile.QNorm) { // each head has a mean square of 1, about, and then its weights
		metric = Div(metric, gx.BroadcastToDims(gx.MaxScalar(gx.DiagonalMean(metric), tinySquare), dims...))
		own := convert(w.vector(modelfile.QNorm), dtypes.Float32)
		metric = Mul(metric, outer(gx.BroadcastToDims(Reshape(own, 1, 1, -1), dims[:3]...)))
	}
	metric = gx.MulScalar(gx.ReduceSum(metric, 1), 1/float64(group))
	return rotatedMean(metric, frequencies, positions)
}

// tinySquare keeps a head of no weights from being divided by 0.
const tinySquare = 1e-30

// rotatedMean is the mean of R·metric·Rᵀ over the rotations R of positions 0 to positions-1, metric
// [K, D, D] of vectors before them.
//
// Pair i is a complex number z_i = x_i + j·x_{i+D/2}, which position p turns by p·f_i. So the mean
// of z_i·z̄_k is turned by p·(f_i - f_k) and that of z_i·z_k by p·(f_i + f_k), and the mean over
// positions is a factor for each of them.
func rotatedMean(metric *Node, frequencies []float32, positions int) *Node {
	half, g := len(frequencies), metric.Graph()
	turned := func(sign float64) (re, im *Node) {
		cos, sin := make([]float32, half*half), make([]float32, half*half)
		for i, f := range frequencies {
			for k, h := range frequencies {
				c, s := meanTurn(float64(f)+sign*float64(h), positions)
				cos[i*half+k], sin[i*half+k] = float32(c), float32(s)
			}
		}
		wide := func(x []float32) *Node {
			return gx.BroadcastToDims(Reshape(Const(g, x), 1, half, half), metric.Shape().Dim(0), half, half)
		}
		return wide(cos), wide(sin)
	}
	quarter := func(row, column int) *Node {
		return Slice(metric, AxisRange(), AxisRange(row*half, (row+1)*half), AxisRange(column*half, (column+1)*half))
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
		Concatenate([]*Node{Add(hr, sr), Sub(si, hi)}, 2),
		Concatenate([]*Node{Add(si, hi), Sub(hr, sr)}, 2),
	}, 1), 0.5)
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
