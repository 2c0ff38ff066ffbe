package nb

import (
	"fmt"
	"image/color"
)

// BitRow is a row of bits to draw, the highest first, and which code each of them belongs to.
type BitRow struct {
	Name  string
	Bits  []int // 0 or 1
	Owner []int
}

// WordBits are the bits of a word that holds codes of so many bits, the first code in the lowest.
func WordBits(name string, word uint32, bits, codes int) BitRow {
	row := BitRow{Name: name}
	for at := bits*codes - 1; at >= 0; at-- {
		row.Bits, row.Owner = append(row.Bits, int(word>>at&1)), append(row.Owner, at/bits)
	}
	return row
}

// Bits draws rows of bits. Bits of one code have one colour, and the code's number stands below
// them.
func Bits(rows ...BitRow) Picture {
	const left, cell, high, gap = 96.0, 18.4, 20.0, 62.0
	s := newSketch(left+32*cell+12, 20+gap*float64(len(rows)))
	colors := []color.Color{color.RGBA{0x9d, 0xbd, 0xe0, 0xff}, color.RGBA{0xf5, 0xc6, 0x8c, 0xff}}
	for r, row := range rows {
		y := 20 + gap*float64(len(rows)-1-r) + 20
		s.text(left-8, y+high/2, style{size: 10, align: -1}, row.Name)
		from := left + float64(32-len(row.Bits))*cell
		for i, bit := range row.Bits {
			x := from + float64(i)*cell
			s.box(x, y, cell-1, high, colors[row.Owner[i]%2])
			s.text(x+cell/2-0.5, y+high/2, style{size: 10.5, align: -0.5}, fmt.Sprint(bit))
		}
		// one name for each run of bits of a code
		for i := 0; i < len(row.Bits); {
			end := i
			for end < len(row.Bits) && row.Owner[end] == row.Owner[i] {
				end++
			}
			s.text(from+float64(i+end)/2*cell, y-11, style{size: 9.5, color: faint, align: -0.5}, fmt.Sprint(row.Owner[i]))
			i = end
		}
	}
	s.text(left, 10, style{size: 10}, "highest bit on the left; below: which code a bit belongs to")
	return s.picture()
}
