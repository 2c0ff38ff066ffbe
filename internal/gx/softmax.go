package gx

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Softmax returns the softmax of logits over their last axis, in logits' dtype.
//
//	logits  [..., T], a float dtype; float16 and bfloat16 are computed in float32 and rounded at the
//	        end
//	mask    nil, or of logits' rank and broadcastable to it:
//	        booleans (false: weight 0) or floats that are added to the logits
//
// A row in which everything is masked (false, or -inf added) gets weights of 0, not NaN.
func Softmax(logits, mask *graph.Node) *graph.Node {
	dtype := logits.DType()
	if !dtype.IsFloat() {
		exceptions.Panicf("gx.Softmax: logits %s, wanted a float dtype", logits.Shape())
	}
	if mask != nil && mask.Rank() != logits.Rank() {
		exceptions.Panicf("gx.Softmax: mask %s, wanted the rank of logits %s", mask.Shape(), logits.Shape())
	}
	x := wide(logits)
	g := x.Graph()
	switch {
	case mask == nil:
	case mask.DType() == dtypes.Bool:
		x = graph.Where(mask, x, NegInf(g, x.DType()))
	case mask.DType().IsFloat():
		x = graph.Add(x, graph.ConvertDType(mask, x.DType()))
	default:
		exceptions.Panicf("gx.Softmax: mask %s, wanted booleans or floats", mask.Shape())
	}
	// A fully masked row has the maximum -inf, and -inf - -inf is NaN: the maximum is kept finite,
	// so exp gives 0.
	top := MaxScalar(ReduceMaxAndKeep(x, -1), lowestFloat32)
	weights := graph.Exp(graph.Sub(x, graph.StopGradient(top)))
	// The largest weight is exp(0) = 1, so a sum below 1 happens only where everything is masked.
	sum := MaxScalar(ReduceSumAndKeep(weights, -1), 1)
	return graph.ConvertDType(graph.Div(weights, sum), dtype)
}

// lowestFloat32 is the most negative finite float32; float64 logits below it do not occur in
// attention.
const lowestFloat32 = -math.MaxFloat32

// wide returns x in float32 when its dtype is a narrower float, else x itself.
func wide(x *graph.Node) *graph.Node {
	if x.DType() == dtypes.Float64 {
		return x
	}
	return graph.ConvertDType(x, dtypes.Float32)
}
