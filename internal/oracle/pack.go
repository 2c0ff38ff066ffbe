package oracle

// Pack is the reference for kvq.Pack on one row of codes, derived bit by bit from the definition of the layout: the codes are
// split into planes of 1, 2, 4 or 8 bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, low bits first), and in a plane of w bits, code i lies in byte
// i mod r from bit w·(i / r) on, where r is the number of bytes of the plane.
func Pack(codes []uint8, bits int) []uint8 {
	packed := make([]uint8, len(codes)*bits/8)
	for i, code := range codes {
		for bit := range bits {
			at, position := bitPosition(len(codes), bits, i, bit)
			packed[at] |= code >> bit & 1 << position
		}
	}
	return packed
}

// Unpack is the inverse of [Pack] for a row of dim codes.
func Unpack(packed []uint8, dim, bits int) []uint8 {
	codes := make([]uint8, dim)
	for i := range codes {
		for bit := range bits {
			at, position := bitPosition(dim, bits, i, bit)
			codes[i] |= packed[at] >> position & 1 << bit
		}
	}
	return codes
}

// bitPosition says where a bit of code i lies: in which byte, at which bit of it.
func bitPosition(dim, bits, i, bit int) (at, position int) {
	first, width := 0, bits // lowest bit and width of the plane
	switch {
	case bits == 3 && bit < 2:
		width = 2
	case bits == 3:
		first, width = 2, 1
	case bits == 5 && bit < 4, bits == 6 && bit < 4:
		width = 4
	case bits == 5:
		first, width = 4, 1
	case bits == 6:
		first, width = 4, 2
	}
	r := dim * width / 8
	return dim*first/8 + i%r, width*(i/r) + bit - first
}
