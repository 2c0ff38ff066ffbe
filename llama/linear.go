package llama

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// How weights reach the body of the decode loop. They are parameters of the enclosing graph
// function, and a closure may use such outer values only as operands of dots and dynamic slices
// (see package gx). So:
//
//   - matrices go straight into a dot, through linear and head;
//   - everything that is used elementwise (norm weights) or by index (embedding rows) goes through
//     gx.Inside first.
//
// XLA hands both to the loop as they are: no copy is made, neither a call nor a step.

// linear multiplies x [..., in] by a weight [out..., in]: [..., out...] in the dtype of x. Products
// are summed in float32 and rounded once.
func linear(x *Node, weight matrix) *Node {
	if !weight.packed() && roundsItself(x) {
		return product(x, weight.plain, x.DType())
	}
	return convert(linear32(x, weight), x.DType())
}

// roundingRows is from how many rows on a product on CUDA writes 16-bit numbers itself.
const roundingRows = 64

// roundsItself reports whether the product of x rounds its float32 sums as it writes them: on a
// CUDA device, whose products sum 16-bit numbers in float32 whatever they write, and where the
// sums are so many that writing them in float32 and reading them again costs time. Where devices
// share the graph, they add up float32 sums.
func roundsItself(x *Node) bool {
	rows := x.Shape().Size() / x.Shape().Dim(-1)
	return x.DType().IsHalfPrecision() && rows >= roundingRows && gx.Sharing(x.Graph()) == 1 && gx.OnCUDA(x.Graph())
}

// linearOfAll is linear where each of several devices has a part of x and the columns of the weight
// that multiply it: the float32 sums of all are added, and rounded once. On one device it is
// linear.
func linearOfAll(x *Node, weight matrix) *Node {
	if !gx.Spread(x.Graph()) {
		return linear(x, weight)
	}
	return convert(gx.SumOverDevices(linear32(x, weight)), x.DType())
}

// biased is linear with a bias [out...] that is added to the float32 sums; nil: none.
func biased(x *Node, weight matrix, bias *Node) *Node {
	if bias == nil {
		return linear(x, weight)
	}
	sum := linear32(x, weight)
	return convert(Add(sum, ExpandLeftToRank(convert(gx.Inside(bias), dtypes.Float32), sum.Rank())), x.DType())
}

// linear32 is linear with the float32 sums as they are.
func linear32(x *Node, w matrix) *Node {
	if w.packed() {
		shape := append(x.Shape().Clone().Dimensions[:x.Rank()-1], w.out...)
		return Reshape(w.mulPacked(Reshape(x, -1, x.Shape().Dim(-1))), shape...)
	}
	return product(x, w.plain, dtypes.Float32)
}

// product is x [..., in] by weight [out..., in], summed in float32 and written in dtype.
func product(x, weight *Node, dtype dtypes.DType) *Node {
	in := weight.Shape().Dim(-1)
	out := append(x.Shape().Clone().Dimensions[:x.Rank()-1], weight.Shape().Dimensions[:weight.Rank()-1]...)
	// Two matrices, because XLA transposes a weight of more axes in memory, at every step. The
	// accumulator is named because GoMLX's default for 16-bit operands adds elementwise operations
	// on the weight, which a closure cannot have; the output dtype makes XLA sum in float32 all the
	// same.
	y := Dot(Reshape(x, -1, in), Reshape(weight, -1, in)).
		WithAccumulatorDType(weight.DType()).WithOutputDType(dtype).General([]int{1}, nil, []int{1}, nil)
	return Reshape(y, out...)
}

// convert is ConvertDType that leaves x alone where it has the dtype already.
func convert(x *Node, dtype dtypes.DType) *Node {
	if x.DType() == dtype {
		return x
	}
	return ConvertDType(x, dtype)
}
