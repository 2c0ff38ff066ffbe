package codes

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// pack puts codes uint8 [n, B, K, rows, lanes] into words [n, B, K·parts, words, lanes].
func (l Layout) pack(codes *Node) *Node {
	words, d, g := l.Words(), dims(codes), codes.Graph()
	codes = padAxis(codes, 3, l.padding())
	var out []*Node
	for _, p := range l.Planes() {
		x := codes
		if p.Low > 0 {
			x = gx.ShiftRight(x, p.Low)
		}
		if p.Low+p.Width < l.Bits {
			x = gx.AndScalar(x, 1<<p.Width-1)
		}
		full := []int{d[0], d[1], d[2] * words.Parts, p.Count, p.Fields, d[4]}
		x = Reshape(ConvertDType(x, words.DType()), full...)
		x = gx.SumHalvesAndKeep(BitwiseShiftLeft(x, words.shifts(g, p.Width, full)), 4)
		out = append(out, Reshape(x, d[0], d[1], d[2]*words.Parts, p.Count, d[4]))
	}
	return concat(out, 3)
}

// unpack is the way back.
func (l Layout) unpack(packed *Node) *Node {
	words, d, g := l.Words(), dims(packed), packed.Graph()
	var codes *Node
	for _, p := range l.Planes() {
		full := []int{d[0], d[1], d[2], p.Count, p.Fields, d[4]}
		x := Reshape(SliceAxis(packed, 3, AxisRange(p.First, p.First+p.Count)), d[0], d[1], d[2], p.Count, 1, d[4])
		x = BitwiseShiftRightLogical(gx.BroadcastToDims(x, full...), words.shifts(g, p.Width, full))
		if p.Width < 8 || words.Bits > 8 {
			x = gx.AndScalar(x, 1<<p.Width-1)
		}
		x = ConvertDType(Reshape(x, d[0], d[1], d[2]/words.Parts, words.Parts*words.Rows, d[4]), dtypes.Uint8)
		if codes == nil {
			codes = x
		} else {
			codes = BitwiseOr(codes, gx.ShiftLeft(x, p.Low))
		}
	}
	if l.padding() > 0 {
		rows, _ := l.Matrix()
		codes = SliceAxis(codes, 3, AxisRange(0, rows))
	}
	return codes
}

// padding is how many rows of packed codes are there to fill their words.
func (l Layout) padding() int {
	rows, _ := l.Matrix()
	return l.Words().Padded() - rows
}

// padAxis puts n zeros behind x along an axis.
func padAxis(x *Node, axis, n int) *Node {
	if n == 0 {
		return x
	}
	config := make([]PadAxis, x.Rank())
	config[axis].End = n
	return Pad(x, gx.Scalar(x.Graph(), x.DType(), 0), config...)
}
