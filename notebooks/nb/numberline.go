package nb

import (
	"fmt"
	"math"
	"slices"
)

// NumberLine draws a group of numbers above a line, and below it the places of all codes of so many
// bits, from the group's minimum to its maximum. Each number is joined with the code that it gets.
func NumberLine(group []float64, bits int) Picture {
	const width, left, right, numbers, codes = 700.0, 40.0, 660.0, 118.0, 58.0
	s := newSketch(width, 176)
	low, high := slices.Min(group), slices.Max(group)
	count := 1 << bits
	step := (high - low) / float64(count-1)
	at := func(x float64) float64 { return left + (x-low)/(high-low)*(right-left) }
	place := func(code int) float64 { return left + float64(code)/float64(count-1)*(right-left) }
	s.text(left, 160, style{size: 12.5, bold: true}, fmt.Sprintf("%d bits: %d codes", bits, count))
	s.line(left, numbers, right, numbers, 1, faint)
	s.line(left, codes, right, codes, 1, faint)
	for code := range count {
		s.line(place(code), codes-4, place(code), codes+4, 1.2, codeColor)
		if count <= 16 || code%16 == 0 || code == count-1 {
			s.text(place(code), codes-16, style{size: 9.5, color: codeColor, align: -0.5}, fmt.Sprint(code))
		}
	}
	for _, x := range group {
		code := int(math.RoundToEven((x - low) / step))
		s.arrow(at(x), numbers-5, place(code), codes+6, 0.9, newColor)
		s.box(at(x)-2.5, numbers-2.5, 5, 5, keyColor)
	}
	for i, x := range slices.Sorted(slices.Values(group)) {
		// neighbours at two heights, so that they can be read
		s.text(at(x), numbers+12+float64(i%2)*12, style{size: 9.5, color: keyColor, align: -0.5}, fmt.Sprintf("%.3g", x))
	}
	s.text(left, 18, style{size: 10}, "above: the numbers; below: the codes, from the group's minimum to its maximum")
	return s.picture()
}
