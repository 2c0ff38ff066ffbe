package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// QueryMetric is the sum of q·qᵀ over the queries [B, H, t, D] of tokens, bool [B, t], for each row
// and key/value head: [B, heads, D, D] float32. Query head h reads key/value head h / (H/heads).
// Queries are as [LayerCache].Attend gets them, heads before tokens. It builds graph operations;
// elements that are not finite count as 0.
//
// The sum is made in float64, so that a row has the same codes whatever padding and other rows it
// is computed with.
func QueryMetric(queries, token *Node, heads int) *Node {
	d := dims(queries)
	token = gx.BroadcastToDims(Reshape(token, d[0], 1, d[2], 1), d...)
	queries = ConvertDType(queries, dtypes.Float32)
	queries = Where(And(token, IsFinite(queries)), queries, gx.ZerosLike(queries))
	// Tokens last: XLA's CPU takes less than half the time then.
	q := ConvertDType(Transpose(Reshape(queries, d[0], heads, d[1]/heads*d[2], d[3]), -1, -2), dtypes.Float64)
	metric := Dot(q, q).General([]int{3}, []int{0, 1}, []int{3}, []int{0, 1})
	return ConvertDType(metric, dtypes.Float32)
}

// shortMetric is [QueryMetric] of queries of 16 bits as a GPU is fast at it: summed in float32.
// What is kept of it has 4 bits an element.
func shortMetric(queries, token *Node, heads int) *Node {
	d, dtype := dims(queries), queries.DType()
	token = gx.BroadcastToDims(Reshape(token, d[0], 1, d[2], 1), d...)
	queries = Where(And(token, IsFinite(queries)), queries, gx.ZerosLike(queries))
	q := Reshape(queries, d[0], heads, d[1]/heads*d[2], d[3])
	product := Dot(q, q).WithAccumulatorDType(dtype).WithOutputDType(dtypes.Float32)
	return product.General([]int{2}, []int{0, 1}, []int{2}, []int{0, 1})
}

// metricTokens is how many tokens of a prompt a metric is made of at most, so that it costs the
// same for every longer one: a sum over 2,048 tokens takes as long as a search for their ranges.
const metricTokens = 256

// evenly takes queries [B, H, t, D] of most tokens of each row, evenly spaced, and of all tokens of
// a row that has fewer: [B, H, most, D]. start [B] int32 is where a row begins. token, bool
// [B, most], is false for what is left over then.
func evenly(queries, start *Node, most int) (picked, token *Node) {
	g, d := queries.Graph(), dims(queries)
	b, h, t := d[0], d[1], d[2]
	row := func(x *Node) *Node { return gx.BroadcastToDims(Reshape(x, b, 1), b, most) }
	tokens := gx.MaxScalar(Sub(gx.Scalar(g, dtypes.Int32, t), start), most)
	at := Iota(g, shapes.Make(dtypes.Int32, b, most), 1)
	at = Add(row(start), Div(Mul(at, row(tokens)), gx.Fill(g, at.Shape(), float64(most))))
	token = gx.LessThanScalar(at, t)
	all := shapes.Make(dtypes.Int32, b, h, most)
	at = gx.BroadcastToDims(Reshape(gx.MinScalar(at, t-1), b, 1, most), b, h, most)
	return Gather(queries, Stack([]*Node{Iota(g, all, 0), Iota(g, all, 1), at}, -1)), token
}

// PackMetrics makes of the metrics of keys in n layers, float32 [n, K, D, D], what
// [LayerCache].WeighKeys takes for each of them: uint8 [n, K, ...], in a quarter of a byte an
// element, for caches of this configuration alone. It builds graph operations, D steps one after
// the other, and is what a model calls once, and not for every prompt. Of [FeedbackMixed], whose
// half the prompt decides, it is the metrics themselves.
func (p *Plan) PackMetrics(metrics *Node) *Node {
	k, d := p.shape.KVHeads, p.shape.HeadDim
	if s := metrics.Shape(); metrics.DType() != dtypes.Float32 || s.Rank() != 4 || s.Dim(1) != k || s.Dim(2) != d || s.Dim(3) != d {
		exceptions.Panicf("kvq.Plan.PackMetrics: %s, want Float32 [n, %d, %d, %d]: a matrix for each layer and key/value head", s, k, d, d)
	}
	switch f := p.config.FeedbackKey; {
	case f == FeedbackMixed:
		return metrics
	case !f.given():
		exceptions.Panicf("kvq.Plan.PackMetrics: want kvq.Config.FeedbackKey %q, %q or %q, got %q", FeedbackMixed, FeedbackCalibrated, FeedbackWeights, f)
	}
	return p.packKeys(metrics)
}

// KeyMetric is the shape of what PackMetrics gives for one layer, heads first; not Ok where this
// cache takes no metric of keys from outside.
func (p *Plan) KeyMetric() shapes.Shape {
	switch f := p.config.FeedbackKey; {
	case f == FeedbackMixed:
		return shapes.Make(dtypes.Float32, p.shape.KVHeads, p.shape.HeadDim, p.shape.HeadDim)
	case f.given():
		return numbers.PackedFactor(p.shape.HeadDim, p.shape.KVHeads)
	}
	return shapes.Invalid()
}

// mixed is half of a metric of each row [B, K, D, D] and half of one for all [K, D, D], each in
// units of its mean diagonal. Where one of them says nothing, it is the other.
func mixed(own, all *Node) *Node {
	d := dims(own)
	all = gx.BroadcastToDims(Reshape(all, append([]int{1}, d[1:]...)...), d...)
	unit := func(x *Node) (scaled, usable *Node) {
		mean := gx.BroadcastToDims(gx.DiagonalMean(x), d...)
		usable = And(IsFinite(mean), gx.GreaterThanScalar(mean, 0))
		return Where(usable, Div(x, Where(usable, mean, gx.OnesLike(mean))), gx.ZerosLike(x)), usable
	}
	own, ownUsable := unit(own)
	all, allUsable := unit(all)
	sum := Add(own, all)
	return Where(And(ownUsable, allUsable), gx.MulScalar(sum, 0.5), sum)
}

// packKeys makes of metrics of keys [B, K, D, D] what the cache keeps of them.
func (p *Plan) packKeys(metrics *Node) *Node {
	return packedFactor(metrics, p.config.RotateKeys, damping[p.config.FeedbackKey])
}

// packedFactor makes of a metric [B, K, D, D] of keys or values what the cache keeps of it.
func packedFactor(metric *Node, rotated bool, damping float64) *Node {
	if rotated {
		metric = numbers.Rotate(Transpose(numbers.Rotate(metric), -1, -2))
	}
	return numbers.PackFactor(numbers.Factor(metric, gx.Fill(metric.Graph(), shapes.Make(dtypes.Float32, dims(metric)[0], 1, 1, 1), damping)))
}

// factorOf is what codes are made with: float32 [B, K, D, D] of [B, K, …] or [K, …] packed, nil
// without feedback.
func factorOf(packed *Node, rows int) *Node {
	if packed == nil {
		return nil
	}
	d := dims(packed)
	if len(d) == 3 {
		packed = gx.BroadcastToDims(Reshape(packed, 1, d[0], d[1], d[2]), rows, d[0], d[1], d[2])
	}
	return numbers.UnpackFactor(packed)
}
