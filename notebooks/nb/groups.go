package nb

import (
	"fmt"
	"image/color"
)

// Groups draws which numbers of one head's keys share a scale and a zero point: per token, along
// the head dimension, as in the tutorial; and per channel, along tokens.
func Groups(headDim, group int) Picture {
	const cell, side = 4.0, 256.0
	s := newSketch(700, 352)
	tokens := 64
	for i, title := range []string{"per token (the tutorial: axis 0)", "per channel (axis -1)"} {
		x, y := 60+float64(i)*340, 46.0
		s.text(x, 336, style{size: 12.5, bold: true}, title)
		for row := range tokens {
			for column := range headDim {
				shade := (row + column/group) % 2
				if i == 1 {
					shade = (column + row/group) % 2
				}
				s.box(x+float64(column)*side/float64(headDim), y+side-float64(row+1)*cell, side/float64(headDim)-0.5, cell-0.5,
					[]color.Color{color.RGBA{0x9d, 0xbd, 0xe0, 0xff}, keyColor}[shade])
			}
		}
		wide := side / float64(headDim)
		if i == 0 {
			row := 9.0
			s.frame(x-1, y+side-(row+1)*cell-1, float64(group)*wide+1.5, cell+1.5, 1.6, newColor)
			s.text(x, 318, style{size: 10, color: newColor}, fmt.Sprintf("outlined: one group, %d channels of one token", group))
		} else {
			column := 9.0
			s.frame(x+column*wide-1, y+side-float64(group)*cell-1, wide+1.5, float64(group)*cell+1.5, 1.6, newColor)
			s.text(x, 318, style{size: 10, color: newColor}, fmt.Sprintf("outlined: one group, one channel of %d tokens", group))
		}
		s.arrow(x, 36, x+side, 36, 0.8, ink)
		s.text(x, 22, style{size: 10}, fmt.Sprintf("channels 0 to %d (head dimension D)", headDim-1))
		s.arrow(x-9, y+side, x-9, y, 0.8, ink)
		s.text(x-14, y+side-8, style{size: 9, align: -1}, "token 0")
		s.text(x-14, y+8, style{size: 9, align: -1}, fmt.Sprint(tokens-1))
	}
	return s.picture()
}
