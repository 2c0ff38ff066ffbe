package kvq

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Codes become bytes in planes. A plane holds w bits of every code, w = 1, 2, 4 or 8, and packs the codes of one row of D
// into r = D·w/8 bytes: byte i holds, from its low bits up, the codes i, i+r, i+2r …
//
//	4 bits, D = 8     byte i:  | c[i+4] | c[i] |                        bits 7..4, 3..0
//	2 bits, D = 8     byte i:  | c[i+6] | c[i+4] | c[i+2] | c[i] |      bits 7..6, 5..4, 3..2, 1..0
//	1 bit,  D = 8     byte 0:  | c[7] | c[6] | … | c[1] | c[0] |
//
// Other widths are two planes, one after the other: 3 bits = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, the low bits of the code first.
//
//	3 bits, D = 8     | low bits: 2 bytes | high bits: 1 byte |         code = low | high << 2
//
// Codes that are neighbours in a row lie in neighbouring bytes, at the same bits. So unpacking is shifts and masks on whole
// runs of bytes: no gather, no shuffle, and XLA fuses it into what reads the codes.

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

// packedPlanes is planes for [Pack]: a single bit is a plane, but no code of a cache. It panics where bits cannot be packed.
func packedPlanes(function string, dim, bits int) []int {
	widths := planes(bits)
	if bits == 1 {
		widths = []int{1}
	}
	if widths == nil {
		exceptions.Panicf("%s: codes of %d bits, want 1, 2, 3, 4, 5, 6 or 8", function, bits)
	}
	for _, w := range widths {
		if dim < 1 || dim*w%8 != 0 {
			exceptions.Panicf("%s: rows of %d codes of %d bits, want a positive multiple of %d", function, dim, bits, 8/w)
		}
	}
	return widths
}

// PackedSize is the number of bytes of a row of dim packed codes, dim·bits/8: there are no holes.
// It panics where [Pack] would.
func PackedSize(dim, bits int) int {
	packedPlanes("kvq.PackedSize", dim, bits)
	return dim * bits / 8
}

// Pack packs codes along the last axis.
//
//	codes  uint8 [..., D], every code below 2^bits; higher bits would spill into other codes
//	bits   1, 2, 3, 4, 5, 6 or 8
//	result uint8 [..., D·bits/8]
//
// D has to be a multiple of 8 / (the narrowest plane): 8 for 1, 3 and 5 bits, 4 for 2 and 6, 2 for 4. It panics on other
// input. The layout is drawn at the top of this file; [Unpack] is the inverse.
func Pack(codes *Node, bits int) *Node {
	if codes.DType() != dtypes.Uint8 || codes.Rank() == 0 {
		exceptions.Panicf("kvq.Pack: codes %s, want uint8 [..., D]", codes.Shape())
	}
	dim := codes.Shape().Dim(-1)
	var parts []*Node
	low := 0 // bits of the code in the planes before this one
	for _, w := range packedPlanes("kvq.Pack", dim, bits) {
		plane := codes
		if low+w < bits {
			plane = gx.AndScalar(plane, 1<<w-1)
		}
		if low > 0 {
			plane = gx.ShiftRight(plane, low)
		}
		parts = append(parts, packPlane(plane, w))
		low += w
	}
	return join(parts)
}

// packPlane packs codes of w bits, w one of 1, 2, 4, 8.
func packPlane(codes *Node, w int) *Node {
	r := codes.Shape().Dim(-1) * w / 8
	packed := columns(codes, 0, r)
	for k := 1; k < 8/w; k++ {
		packed = BitwiseOr(packed, gx.ShiftLeft(columns(codes, k*r, r), k*w))
	}
	return packed
}

// Unpack is the inverse of [Pack].
//
//	packed uint8 [..., D·bits/8]
//	result uint8 [..., D], every code below 2^bits
func Unpack(packed *Node, bits int) *Node { return join(unpackParts(packed, bits)) }

// unpackParts is [Unpack] before its parts are joined: consecutive runs of equal length of the D codes. Attention that works
// on the parts one by one is spared a copy.
func unpackParts(packed *Node, bits int) []*Node {
	if packed.DType() != dtypes.Uint8 || packed.Rank() == 0 || packed.Shape().Dim(-1)*8%bits != 0 {
		exceptions.Panicf("kvq.Unpack: codes %s, want uint8 [..., D*%d/8]", packed.Shape(), bits)
	}
	dim := packed.Shape().Dim(-1) * 8 / bits
	widths := packedPlanes("kvq.Unpack", dim, bits)
	// The narrowest plane, which is the last, has the shortest runs.
	run := dim * widths[len(widths)-1] / 8
	parts := make([]*Node, dim/run)
	at, low := 0, 0
	for _, w := range widths {
		r := dim * w / 8
		for i := range parts {
			// Code i*run of this plane lies in byte i*run mod r, at bits w*(i*run / r).
			bytes := columns(packed, at+i*run%r, run)
			code := bytes
			if shift := w * (i * run / r); shift > 0 {
				code = gx.ShiftRight(code, shift)
			}
			if w < 8 && w*(i*run/r)+w < 8 {
				code = gx.AndScalar(code, 1<<w-1)
			}
			if low > 0 {
				code = BitwiseOr(parts[i], gx.ShiftLeft(code, low))
			}
			parts[i] = code
		}
		at, low = at+r, low+w
	}
	return parts
}

// columns cuts n elements from start on out of the last axis.
func columns(x *Node, start, n int) *Node {
	if start == 0 && n == x.Shape().Dim(-1) {
		return x
	}
	return SliceAxis(x, -1, AxisRange(start, start+n))
}

// join puts parts one after the other along the last axis.
func join(parts []*Node) *Node {
	if len(parts) == 1 {
		return parts[0]
	}
	return Concatenate(parts, -1)
}
