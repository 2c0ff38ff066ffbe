package codes

import "slices"

// Codes are packed in planes: a plane holds w bits of every code, w = 1, 2, 4 or 8, so that no code
// straddles two words. Other widths are several planes, one after the other, the low bits of the
// code first. Where the bits of a plane lie is in words.go.

// Widths is the table of all widths that codes may have, and of their planes, low bits first. A new
// width is one entry here.
var Widths = []Width{
	{1, []int{1}},
	{2, []int{2}},
	{3, []int{2, 1}},
	{4, []int{4}},
	{5, []int{4, 1}},
	{6, []int{4, 2}},
	{8, []int{8}},
}

// Width is a number of bits of a code, and how they are packed.
type Width struct {
	Bits   int
	Planes []int
}

// IsWidth tells whether codes may have so many bits.
func IsWidth(bits int) bool { return planes(bits) != nil }

// AllBits lists the widths in bits, in the order of the table.
func AllBits() []int {
	var list []int
	for _, w := range Widths {
		list = append(list, w.Bits)
	}
	return list
}

// planes returns the widths of the planes of a code, low bits first; nil where there is no such
// code.
func planes(bits int) []int {
	i := slices.IndexFunc(Widths, func(w Width) bool { return w.Bits == bits })
	if i < 0 {
		return nil
	}
	return Widths[i].Planes
}
