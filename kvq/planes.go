package kvq

// Codes are packed in planes: a plane holds w bits of every code, w = 1, 2, 4 or 8, so that no code straddles two words or bytes. Other widths are two
// planes, one after the other, the low bits of the code first: 3 bits = 2 + 1, 5 = 4 + 1, 6 = 4 + 2. Where the bits of a plane lie is in words.go.

// planes returns the widths of the planes of a code, low bits first; nil where there is no such code.
func planes(bits int) []int {
	switch bits {
	case 2, 4, 8:
		return []int{bits}
	case 3:
		return []int{2, 1}
	case 5:
		return []int{4, 1}
	case 6:
		return []int{4, 2}
	}
	return nil
}
