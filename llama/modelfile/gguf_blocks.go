package modelfile

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/gomlx/go-huggingface/models/gguf"
)

// blockType is a packed element type of GGUF files that is read here, because go-huggingface does
// not: blocks of so many elements and bytes. unpack writes the elements of one block.
type blockType struct {
	elements, bytes int
	unpack          func(dst []float32, block []byte)
}

// Layouts: block_iq4_nl, block_iq4_xs and block_mxfp4 in ggml-common.h of llama.cpp. Values:
// dequantize_row_* in ggml-quants.c.
var blockTypes = map[gguf.TensorType]blockType{
	gguf.TensorTypeIQ4_NL: {32, 2 + 16, unpackIQ4NL},
	gguf.TensorTypeIQ4_XS: {256, 2 + 2 + 4 + 128, unpackIQ4XS},
	gguf.TensorTypeMXFP4:  {32, 1 + 16, unpackMXFP4},
}

// kvaluesIQ4NL are the values of IQ4_NL's and IQ4_XS's codes: kvalues_iq4nl of llama.cpp.
var kvaluesIQ4NL = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// kvaluesMXFP4 are twice the values of E2M1's codes: kvalues_mxfp4 of llama.cpp. Source: OCP
// Microscaling Formats (MX) v1.0, section 5.3.3.
var kvaluesMXFP4 = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// unpackIQ4NL: float16 scale, 16 bytes with codes i and 16 + i. value = scale · kvalues[code].
func unpackIQ4NL(dst []float32, block []byte) {
	unpackNibbles(dst, block[2:], halfAt(block), &kvaluesIQ4NL)
}

// unpackIQ4XS: float16 scale, uint16 with the upper 2 bits of 8 scales, 4 bytes with their lower 4
// bits, and for each of 8 groups of 32 elements 16 bytes as in IQ4_NL. value = scale ·
// (scaleOfGroup - 32) · kvalues[code].
func unpackIQ4XS(dst []float32, block []byte) {
	scale, high, low := halfAt(block), binary.LittleEndian.Uint16(block[2:]), block[4:8]
	for g := range 8 {
		code := low[g/2]>>(4*(g%2))&15 | byte(high>>(2*g)&3)<<4
		unpackNibbles(dst[32*g:32*g+32], block[8+16*g:], scale*(float32(code)-32), &kvaluesIQ4NL)
	}
}

// unpackMXFP4: an exponent (E8M0), 16 bytes with codes i and 16 + i. value = 2^(exponent-127) ·
// kvalues[code] / 2.
func unpackMXFP4(dst []float32, block []byte) {
	scale := float32(math.Ldexp(1, int(block[0])-128)) // half of 2^(e-127): exact, if subnormal
	unpackNibbles(dst, block[1:], scale, &kvaluesMXFP4)
}

// unpackNibbles writes 32 values for 16 bytes: the lower halves, then the upper ones.
func unpackNibbles(dst []float32, codes []byte, scale float32, values *[16]float32) {
	low, high := dst[:16], dst[16:32]
	for i, b := range codes[:16] {
		low[i], high[i] = scale*values[b&15], scale*values[b>>4]
	}
}

func halfAt(b []byte) float32 {
	return math.Float32frombits(halfToFloat[binary.LittleEndian.Uint16(b)])
}

// blockReader is a tensor in blocks as float32 elements.
type blockReader struct {
	tensorReader
	of blockType
}

// ReadAt wants whole blocks, which rows are made of.
func (r blockReader) ReadAt(p []byte, off int64) (int, error) {
	out := 4 * r.of.elements
	if len(p)%out != 0 || off%int64(out) != 0 {
		return 0, fmt.Errorf("%d bytes from %d on are no whole blocks of %d", len(p), off, out)
	}
	packed := make([]byte, len(p)/out*r.of.bytes)
	n, err := r.tensorReader.ReadAt(packed, off/int64(out)*int64(r.of.bytes))
	if n == len(packed) {
		err = nil
	} else if err == nil {
		err = io.ErrUnexpectedEOF
	}
	whole := n / r.of.bytes
	values := make([]float32, r.of.elements)
	for b := range whole {
		r.of.unpack(values, packed[b*r.of.bytes:(b+1)*r.of.bytes])
		for i, v := range values {
			binary.LittleEndian.PutUint32(p[b*out+4*i:], math.Float32bits(v))
		}
	}
	return whole * out, err
}
