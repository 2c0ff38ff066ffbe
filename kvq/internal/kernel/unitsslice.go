package kernel

import (
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// sliceRows are the rows of codes that two products sum over: 32 channels of keys or tokens of
// values. In a plane of w bits they are w words of each lane of the block.
//
// Which row comes where in a sum does not matter, as long as it is the same for what codes are
// multiplied by. So lane (g, t) masks whole words and takes 8 rows of every slice, as four pairs:
// the fields of a word that lie 16 bits apart.
//
//	bits   words of lane t        pairs of rows
//	4      word t                 8t + (0,4), (1,5), (2,6), (3,7)
//	2      word t/2               16(t/2) + 4(t%2) + (0,8), (1,9), (2,10), (3,11)
//	1      word 0                 4t + (0,16), (1,17), (2,18), (3,19)
//	8      words 2t and 2t + 1    8t + (0,2), (1,3), (4,6), (5,7)
const sliceRows = 32

// slicePlane is a plane of codes, cut in slices.
type slicePlane struct {
	codes.Plane
	wordsOfPart, rowsOfPart int
	// of lane t in a slice: its first word, how far that is shifted, its first row (a multiple of
	// 4)
	word, shift, start ptx.Value
}

func (u *units) planes(f codes.Format) []slicePlane {
	var list []slicePlane
	layout := f.Words()
	for _, p := range f.Planes() {
		s := slicePlane{Plane: p, wordsOfPart: f.WordsOfPart(), rowsOfPart: layout.Rows}
		switch p.Width {
		case 8:
			s.word, s.start = u.Mul(u.t, u.Int(2)), u.Mul(u.t, u.Int(8))
		case 4:
			s.word, s.start = u.t, u.Mul(u.t, u.Int(8))
		case 2:
			s.word = u.ShiftRight(u.t, u.Int(1))
			part := u.And(u.t, u.Int(1))
			s.shift, s.start = u.Mul(part, u.Int(8)), u.Add(u.Mul(s.word, u.Int(16)), u.Mul(part, u.Int(4)))
		case 1:
			s.word, s.shift, s.start = u.Int(0), u.Mul(u.t, u.Int(4)), u.Mul(u.t, u.Int(4))
		}
		list = append(list, s)
	}
	return list
}

// apart is how many rows are between the first four rows of lane t and the other four.
func (p slicePlane) apart() int {
	if p.Width == 8 {
		return 4
	}
	return 16 / p.Width
}

// rows are the rows of pair f, counted from the first.
func (p slicePlane) rows(f int) (low, high int) {
	if p.Width == 8 {
		return f/2*4 + f%2, f/2*4 + f%2 + 2
	}
	return f, f + p.apart()
}

// index is where a row of lane t comes among its eight.
func (p slicePlane) index(row int) int {
	if row >= p.apart() {
		return 4 + row - p.apart()
	}
	return row
}

// at is the bit of its half of a word at which the fields of pair f begin when masked.
func (p slicePlane) at(f int) int {
	if p.Width == 8 {
		return 0
	}
	return f * p.Width % 8
}

// wordOf is the first word of a slice, counted in a head.
func (p slicePlane) wordOf(slice int) int {
	row := slice * sliceRows
	return row/p.rowsOfPart*p.wordsOfPart + p.First + row%p.rowsOfPart/sliceRows*p.Width
}

// pairs masks the words of a lane (two with 8 bits, else one): four times two codes as bfloat16.
func (p slicePlane) pairs(u *units, words []ptx.Value) (out [4]ptx.Value) {
	mask := uint32(1<<p.Width-1) * 0x00010001
	for i, x := range words {
		if p.Width < 4 {
			x = u.ShiftRight(x, p.shift)
		}
		high := x
		if p.Width >= 4 {
			high = u.ShiftRight(x, u.Int(8))
		}
		each := len(out) / len(words)
		for f := range each {
			from, at := x, f*p.Width
			if at >= 8 {
				from, at = high, at-8
			}
			out[i*each+f] = u.And(from, u.Bits(mask<<at))
		}
	}
	return out
}

// Rows of words of shared memory are pieces of 16 bytes, of which eight are 32 banks. Lanes read
// piece g of the row that t says, so pieces change places, by a number that depends on the row.

// swap is what the number of a piece of a row is combined with.
func swap(bits, row int) int { return row >> swapShift(bits) & 3 * 2 }

func swapShift(bits int) int {
	if bits == 8 {
		return 1
	}
	return 0
}

// loads reads the words of a plane in a slice: four neighbouring lanes of the block from 4g on, and
// one or two words of each. at is where the block's codes begin, stride the bytes of a row.
func (u *units) loads(p slicePlane, bits int, at ptx.Value, offset, slice, stride int) [4][]ptx.Value {
	var out [4][]ptx.Value
	n := 1
	if p.Width == 8 {
		n = 2
	}
	for w := range n {
		row := p.wordOf(slice) + w
		for i, x := range u.LoadShared(4, u.Add(at, u.swapped(p, bits, row, stride)), offset+row*stride) {
			out[i] = append(out[i], x)
		}
	}
	return out
}

// swapped is where piece g of a lane's word lies, from where word row lies.
func (u *units) swapped(p slicePlane, bits, row, stride int) ptx.Value {
	var key [ptx.Lanes]int
	for lane := range key {
		g, t := lane/4, lane%4
		word := map[int]int{8: 2 * t, 4: t, 2: t / 2, 1: 0}[p.Width]
		key[lane] = word*stride + 16*(g^swap(bits, row+word))
	}
	v, ok := u.offsets[key]
	if !ok {
		v = u.Add(p.word, u.Int(row%8))
		v = u.Mul(u.And(u.shifted(v, swapShift(bits)), u.Int(3)), u.Int(2))
		v = u.Add(u.Mul(u.Xor(u.g, v), u.Int(16)), u.Mul(p.word, u.Int(stride)))
		u.offsets[key] = v
	}
	return v
}
