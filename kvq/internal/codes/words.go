package codes

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/words"
)

// Packed codes of a block lie in words, which run along the lanes: word i of a lane holds the codes
// of rows i·f to i·f+f-1 of that lane, the first in the lowest bits. f = 8 with 4 bits and words of
// 32:
//
//	word i, lane l    | row 8i+7 | … | row 8i+1 | row 8i |
//
// Widths that are not powers of two are planes (widths.go), each in words of its own, one after the
// other: 3 bits = 2 + 1.
//
// Heads of keys are split in parts of neighbouring channels, as if they were more heads: so many
// words of a part that XLA's CPU compiler still puts a whole sum over them into one loop (see
// sums.go).
//
// Where the channels of a head do not fill words so (100 of them, in a plane of 1 bit), rows of
// padding follow them, to the next multiple of 8. Their codes are 0 and are multiplied by 0.

// WordLayout is how packed codes lie in words.
type WordLayout struct {
	Bits  int  // of a word: 32, 16 or 8
	Parts int  // of a head
	Rows  int  // of a part; of the last one, some may be padding
	Whole bool // no word holds codes of two groups
}

// Padded is how many rows a head has with padding.
func (w WordLayout) Padded() int { return w.Parts * w.Rows }

// maxWords is the most words of a part: as many as [gx.MaxUses] allows in one loop. Saved caches
// lie this way, so it does not change with that.
const maxWords = 15

// Words chooses the widest words that codes fill exactly, and the fewest parts; where there are
// none, with rows of padding. What then is left are codes of several groups in a word.
func (l Layout) Words() WordLayout {
	rows, _ := l.Matrix()
	if layout, ok := l.wordsOf(rows); ok {
		return layout
	}
	padded := (rows + 7) / 8 * 8
	if l.Groups() == 1 {
		if layout, ok := l.wordsOf(padded); ok {
			return layout
		}
	}
	for _, w := range planes(l.Bits) {
		if rows*w%8 != 0 {
			return WordLayout{8, 1, padded, false}
		}
	}
	return WordLayout{8, 1, rows, false}
}

// wordsOf is Words for so many rows; ok is false where codes do not fill words group by group.
func (l Layout) wordsOf(rows int) (layout WordLayout, ok bool) {
	group := l.Group
	if l.PerChannel || !l.Keys || l.Groups() == 1 {
		group = rows // one group, which has the padding
	}
	for _, bits := range []int{32, 16, 8} {
		most := ((maxWords+1)*bits - 1) / planes(l.Bits)[0]
		for part := min(rows, most); part >= min(rows, 8); part-- {
			if rows%part != 0 || part%group != 0 && group%part != 0 || !l.Keys && part != rows {
				continue
			}
			exact := true
			for _, w := range planes(l.Bits) {
				exact = exact && part*w%bits == 0 && min(part, group)*w%bits == 0
			}
			if exact {
				return WordLayout{bits, rows / part, part, true}, true
			}
		}
	}
	return WordLayout{}, false
}

// DType is that of a word.
func (w WordLayout) DType() dtypes.DType {
	switch w.Bits {
	case 32:
		return dtypes.Uint32
	case 16:
		return dtypes.Uint16
	}
	return dtypes.Uint8
}

// Count is the number of words of a part in a plane of so many bits.
func (w WordLayout) Count(width int) int { return w.Rows * width / w.Bits }

// shifts are the positions of the fields of a word along axis 4 of shape.
func (w WordLayout) shifts(g *Graph, width int, shape []int) *Node {
	field := Iota(g, shapes.Make(dtypes.Int32, shape...), 4)
	return ConvertDType(gx.MulScalar(field, width), w.DType())
}

// fields are those of words that hold so many bits of each code.
func (w WordLayout) fields(width int) words.Fields { return words.Fields{Word: w.Bits, Width: width} }

// factors are what the rows of a part have to be multiplied by, [rows] float32, for a plane that
// begins at bit low of its codes: see [words.Place.Factor].
func (w WordLayout) factors(g *Graph, width, low int) *Node {
	fields, out := w.fields(width), make([]float32, w.Rows)
	for row := range out {
		out[row] = fields.Integer(row % fields.Count()).Factor(low)
	}
	return Const(g, out)
}
