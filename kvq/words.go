package kvq

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Packed codes of a block lie in words, which run along the lanes: word i of a lane holds the codes of rows i·f to i·f+f-1 of that lane, the
// first in the lowest bits. f = 8 with 4 bits and words of 32:
//
//	word i, lane l    | row 8i+7 | … | row 8i+1 | row 8i |
//
// Widths that are not powers of two are planes (planes.go), each in words of its own, one after the other: 3 bits = 2 + 1.
//
// Heads of keys are split in parts of neighbouring channels, as if they were more heads: so many words of a part that XLA's CPU compiler still
// puts a whole sum over them into one loop (see fused.go).

// wordLayout is how a side's codes lie in words.
type wordLayout struct {
	bits  int // of a word: 32, 16 or 8
	parts int // of a head
	rows  int // of a part
	whole bool
}

// maxWords is how often XLA's CPU compiler evaluates one operation inside a fused loop; what is used more often is stored instead
// (FusionNodeIndexingEvaluation, kMaxCodeDuplication = 15).
const maxWords = 15

// words chooses the widest words that codes fill exactly, and the fewest parts. whole tells that no word holds codes of two groups.
func (s side) words(headDim int) wordLayout {
	rows, _ := s.matrix(headDim)
	fits := func(bits, rows int) (exact, whole bool) {
		exact, whole = true, true
		for _, w := range planes(s.bits) {
			exact = exact && rows*w%bits == 0
			whole = whole && (!s.keys || s.axis == PerChannel || min(rows, s.group)*w%bits == 0)
		}
		return exact, whole
	}
	for _, bits := range []int{32, 16, 8} {
		for parts := 1; s.keys && parts <= headDim/8 || parts == 1; parts++ {
			part := rows / parts
			grouped := s.axis == PerChannel || !s.keys || part%s.group == 0 || s.group%part == 0
			exact, whole := fits(bits, part)
			if rows%parts == 0 && exact && whole && grouped && part*planes(s.bits)[0]/bits <= maxWords {
				return wordLayout{bits, parts, part, true}
			}
		}
	}
	return wordLayout{8, 1, rows, false} // headDim is a multiple of 8, so bytes always fit
}

func (l wordLayout) dtype() dtypes.DType {
	switch l.bits {
	case 32:
		return dtypes.Uint32
	case 16:
		return dtypes.Uint16
	}
	return dtypes.Uint8
}

// count is the number of words of a part in a plane of so many bits.
func (l wordLayout) count(width int) int { return l.rows * width / l.bits }

// pack puts codes uint8 [n, B, K, rows, lanes] into words [n, B, K·parts, words, lanes].
func (s side) pack(codes *Node, headDim int) *Node {
	l, d, g := s.words(headDim), dims(codes), codes.Graph()
	var out []*Node
	low := 0
	for _, w := range planes(s.bits) {
		x := codes
		if low > 0 {
			x = gx.ShiftRight(x, low)
		}
		if low+w < s.bits {
			x = gx.AndScalar(x, 1<<w-1)
		}
		full := []int{d[0], d[1], d[2] * l.parts, l.count(w), l.bits / w, d[4]}
		x = Reshape(ConvertDType(x, l.dtype()), full...)
		out = append(out, gx.ReduceSum(BitwiseShiftLeft(x, l.shifts(g, w, full)), 4))
		low += w
	}
	return concat(out, 3)
}

// unpack is the way back.
func (s side) unpack(words *Node, headDim int) *Node {
	l, d, g := s.words(headDim), dims(words), words.Graph()
	var codes *Node
	first, low := 0, 0
	for _, w := range planes(s.bits) {
		n := l.count(w)
		full := []int{d[0], d[1], d[2], n, l.bits / w, d[4]}
		x := gx.BroadcastToDims(Reshape(SliceAxis(words, 3, AxisRange(first, first+n)), d[0], d[1], d[2], n, 1, d[4]), full...)
		x = BitwiseShiftRightLogical(x, l.shifts(g, w, full))
		if w < 8 || l.bits > 8 {
			x = gx.AndScalar(x, 1<<w-1)
		}
		x = ConvertDType(Reshape(x, d[0], d[1], d[2]/l.parts, l.parts*l.rows, d[4]), dtypes.Uint8)
		if codes == nil {
			codes = x
		} else {
			codes = BitwiseOr(codes, gx.ShiftLeft(x, low))
		}
		first, low = first+n, low+w
	}
	return codes
}

// shifts are the positions of the fields of a word along axis 4 of shape.
func (l wordLayout) shifts(g *Graph, width int, shape []int) *Node {
	field := Iota(g, shapes.Make(dtypes.Int32, shape...), 4)
	return ConvertDType(gx.MulScalar(field, width), l.dtype())
}

// fields takes words apart into float32 numbers of the same shape: number k is the code of field k times 2^(width·k), or width less where
// the field ends with the word, so that it does not reach the sign. Bits are masked but not shifted down; whoever multiplies makes up
// for it, see scale.
func (l wordLayout) fields(words *Node, width int) []*Node {
	var out []*Node
	for k := range l.bits / width {
		x, at := words, width*k
		if l.last(k, width) {
			x, at = gx.ShiftRight(x, width), at-width
		}
		if width < l.bits {
			x = gx.AndScalar(x, (1<<width-1)<<at)
		}
		if l.bits == 32 {
			x = Bitcast(x, dtypes.Int32)
		}
		out = append(out, ConvertDType(x, dtypes.Float32))
	}
	return out
}

func (l wordLayout) last(k, width int) bool { return k > 0 && k == l.bits/width-1 }

// factors are what the rows of a part have to be multiplied by, [rows] float32: fields counts code·2^at, and the plane begins at bit low.
func (l wordLayout) factors(g *Graph, width, low int) *Node {
	out := make([]float32, l.rows)
	for row := range out {
		k := row % (l.bits / width)
		at := width * k
		if l.last(k, width) {
			at -= width
		}
		out[row] = float32(math.Ldexp(1, low-at))
	}
	return Const(g, out)
}
