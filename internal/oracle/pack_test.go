package oracle

import (
	"bytes"
	"testing"
)

// Packed by hand. 4 bits, 8 codes: byte i = c[i] | c[i+4]<<4. 3 bits, 8 codes 0..7: low bits 0 1 2 3 0 1 2 3 in two bytes,
// byte i = l[i] | l[i+2]<<2 | l[i+4]<<4 | l[i+6]<<6: 0|2<<2|0|2<<6 = 0x88, 1|3<<2|1<<4|3<<6 = 0xdd; high bits 0 0 0 0 1 1 1 1 = 0xf0.
func TestPackByHand(t *testing.T) {
	codes := []uint8{0, 1, 2, 3, 4, 5, 6, 7}
	for bits, want := range map[int][]uint8{
		8: {0, 1, 2, 3, 4, 5, 6, 7},
		4: {0x40, 0x51, 0x62, 0x73},
		3: {0x88, 0xdd, 0xf0},
	} {
		if got := Pack(codes, bits); !bytes.Equal(got, want) {
			t.Errorf("%d bits: %x, wanted %x", bits, got, want)
		}
	}
}

// FuzzPack packs random codes by the definition and by a second route, plane by plane, and unpacks them again.
func FuzzPack(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, uint8(3))
	f.Add(bytes.Repeat([]byte{0xff, 0x5a}, 40), uint8(5))
	f.Fuzz(func(t *testing.T, codes []byte, choice uint8) {
		bits := []int{1, 2, 3, 4, 5, 6, 8}[choice%7]
		codes = codes[:len(codes)/8*8]
		for i := range codes {
			codes[i] &= 1<<bits - 1
		}
		packed := Pack(codes, bits)
		if len(packed) != len(codes)*bits/8 {
			t.Fatalf("%d codes of %d bits take %d bytes", len(codes), bits, len(packed))
		}
		if byPlanes := packByPlanes(codes, bits); !bytes.Equal(packed, byPlanes) {
			t.Fatalf("%d bits: by definition %x, plane by plane %x", bits, packed, byPlanes)
		}
		if back := Unpack(packed, len(codes), bits); !bytes.Equal(back, codes) {
			t.Fatalf("%d bits: %v came back as %v", bits, codes, back)
		}
	})
}

func packByPlanes(codes []uint8, bits int) []uint8 {
	widths := map[int][]int{1: {1}, 2: {2}, 3: {2, 1}, 4: {4}, 5: {4, 1}, 6: {4, 2}, 8: {8}}[bits]
	var out []uint8
	low := 0
	for _, w := range widths {
		r := len(codes) * w / 8
		plane := make([]uint8, r)
		for k := range 8 / w {
			for i := range r {
				plane[i] |= codes[k*r+i] >> low & (1<<w - 1) << (k * w)
			}
		}
		out = append(out, plane...)
		low += w
	}
	return out
}
