package llama

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/rotary"
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
	return rotary.Mean(metric, frequencies, positions)
}

// tinySquare keeps a head of no weights from being divided by 0.
const tinySquare = 1e-30
