package llama

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/words"
)

// Weights as a GGUF packs them: groups of 32 along the input axis, with value = scale·code + min.
// Codes are unpacked in the loop that multiplies and adds them, in registers, so that a step reads
// 5 bits a weight (Q4_1) or 8.5 (Q8_0) instead of 32.
//
// Lanes of that loop are the output rows, so matrices are stored with the output axis last:
//
//	Q4_1  words uint32 [in/32, 4, out], scale and min float16 [in/32, out]
//	Q8_0  words uint32 [in/32, 8, out], scale float16 [in/32, out]; codes plus 128, so that they have no sign
//
// Word w of a group is four bytes of the file. Byte b of Q4_1 holds the code of row 4w+b in its low
// half and that of row 16+4w+b in its high half, of Q8_0 the code of row 4w+b. Source: block_q4_1
// and block_q8_0 in ggml-common.h of llama.cpp.

const packedGroup = 32

// signOffset is what is added to the codes of Q8_0.
const signOffset = 128

// matrix is the weight of a linear layer as nodes: plain, or packed codes.
type matrix struct {
	plain *Node // [out..., in]

	codes, scale, min *Node // packed; min is nil for Q8_0
	out               []int // of packed ones
}

func (w matrix) packed() bool { return w.plain == nil }

// packedRows is up to how many rows of x the codes are unpacked in the loop, once for each row.
// From then on a float32 copy of the matrix is made for a normal product, which shares the
// unpacking.
const packedRows = 8

// mulPacked multiplies x [rows, in] by a packed weight: [rows, out] float32.
func (w matrix) mulPacked(x *Node) *Node {
	x = convert(x, dtypes.Float32)
	held := []*Node{gx.Inside(w.codes), gx.Inside(w.scale)}
	if w.min != nil {
		held = append(held, gx.Inside(w.min))
	}
	// The barrier ties the weights to x: otherwise XLA sees that they are the same in all
	// iterations of the decode loop, and unpacks them before it.
	held = OptimizationBarriers(append(held, x)...)
	codes, scale := held[0], held[1]
	x = held[len(held)-1]
	groups := scale.Shape().Dim(0)
	var min *Node
	if w.min != nil {
		min = held[2]
		// [.., half, w, b] -> [.., w, b, half], the order of the fields of words
		rows := x.Shape().Dim(0)
		x = Reshape(TransposeAllAxes(Reshape(x, rows, groups, 2, 4, 4), 0, 1, 3, 4, 2), rows, groups*packedGroup)
	}
	if x.Shape().Dim(0) > packedRows {
		return Dot(x, unpackMatrix(codes, scale, min)).General([]int{1}, nil, []int{0}, nil)
	}
	return sumCodes(x, codes, scale, min)
}

// unpacked is the whole of a packed matrix, [in, out] float32.
func (w matrix) unpacked() *Node {
	if w.min == nil {
		return unpackMatrix(gx.Inside(w.codes), gx.Inside(w.scale), nil)
	}
	x := unpackMatrix(gx.Inside(w.codes), gx.Inside(w.scale), gx.Inside(w.min))
	in, out := x.Shape().Dim(0), x.Shape().Dim(1)
	return Reshape(TransposeAllAxes(Reshape(x, in/packedGroup, 4, 4, 2, out), 0, 3, 1, 2, 4), in, out)
}

// unpackMatrix is the whole matrix [in, out] float32, the rows in the order of codes.
func unpackMatrix(codes, scale, min *Node) *Node {
	g, groups, out := codes.Graph(), scale.Shape().Dim(0), scale.Shape().Dim(1)
	wide := func(x *Node) *Node {
		return gx.BroadcastToDims(Reshape(ConvertDType(x, dtypes.Float32), groups, 1, out), groups, packedGroup, out)
	}
	words := codes.Shape().Dim(1)
	fields := packedGroup / words
	full := []int{groups, words, fields, out}
	shift := ConvertDType(gx.MulScalar(Iota(g, shapes.Make(dtypes.Int32, full...), 2), 32/fields), dtypes.Uint32)
	code := BitwiseShiftRightLogical(gx.BroadcastToDims(Reshape(codes, groups, words, 1, out), full...), shift)
	code = Bitcast(gx.AndScalar(code, 1<<(32/fields)-1), dtypes.Int32)
	values := Reshape(ConvertDType(code, dtypes.Float32), groups, packedGroup, out)
	if min == nil {
		values = Mul(gx.SubScalar(values, signOffset), wide(scale))
	} else {
		values = Add(Mul(values, wide(scale)), wide(min))
	}
	return Reshape(values, groups*packedGroup, out)
}

// sumCodes multiplies without a copy of the matrix:
//
//	y[o] = Σ_g scale[g, o] · (Σ_{i in g} x[i]·code[i, o]) + min[g, o] · Σ_{i in g} x[i]
func sumCodes(x, codes, scale, min *Node) *Node {
	g, rows, groups, out := x.Graph(), x.Shape().Dim(0), scale.Shape().Dim(0), scale.Shape().Dim(1)
	// Always true, for NaN too, and XLA cannot know.
	always := LogicalNot(gx.GreaterThanScalar(gx.MinScalar(Reshape(Slice(x, AxisElem(0), AxisElem(0))), 1), 2))
	keep := gx.NewWholeLoops(always).Keep
	count := codes.Shape().Dim(1) // words of a group
	field := words.Fields{Word: 32, Width: 32 * count / packedGroup}
	fields := field.Count()
	// Codes stay where they lie in their words; the row of x makes up for that.
	factors := make([]float32, fields)
	for k := range factors {
		factors[k] = field.Integer(k).Factor(0)
	}
	perField := []int{rows, groups * count, fields}
	weights := Mul(Reshape(x, perField...), gx.BroadcastToDims(Reshape(Const(g, factors), 1, 1, fields), perField...))
	weights = keep(Reshape(weights, rows, groups, count, fields))
	full := []int{rows, groups, count, out}
	codes = Reshape(codes, 1, groups, count, out)
	var terms []*Node
	for k := range fields {
		values := field.Number(k, codes)
		terms = append(terms, Mul(gx.BroadcastToDims(values, full...), gx.BroadcastToDims(SliceAxis(weights, 3, AxisElem(k)), full...)))
	}
	each := []int{rows, groups, out}
	wide := func(x *Node) *Node {
		return gx.BroadcastToDims(Reshape(ConvertDType(x, dtypes.Float32), 1, groups, out), each...)
	}
	sum := Mul(gx.SumSlices(gx.SumInChains(terms), 2, 0, count), wide(scale))
	total := keep(gx.ReduceSum(Reshape(x, rows, groups, packedGroup), 2))
	rest := gx.BroadcastToDims(Reshape(total, rows, groups, 1), each...)
	if min == nil {
		sum = Add(sum, Mul(gx.MulScalar(wide(scale), -signOffset), rest))
	} else {
		sum = Add(sum, Mul(wide(min), rest))
	}
	sum = keep(sum)
	// the library is fast at this one, and it is one operation to compile instead of three a group
	return gx.ReduceSum(sum, 1)
}
