package modelfile

import (
	"encoding/binary"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

// converter turns little-endian elements of one floating-point type into another, rounding to
// nearest, ties to even.
type converter struct {
	from, to     dtypes.DType // each float32, float16 or bfloat16
	roundFloat16 bool         // round to float16 on the way
}

// copies says that nothing changes.
func (c converter) copies() bool {
	return c.from == c.to && (!c.roundFloat16 || c.from == dtypes.Float16)
}

// convert fills dst from src, which has as many elements. It returns the index of the first finite
// element that became infinite because the target cannot hold it, or -1.
func (c converter) convert(dst, src []byte) int {
	overflow := -1
	switch {
	case c.copies():
		copy(dst, src)
	// the common case of float16 checkpoints on a CPU
	case c.from == dtypes.Float16 && c.to == dtypes.Float32:
		widenHalf(dst, src)
	case c.from == dtypes.BFloat16 && c.to == dtypes.Float32 && !c.roundFloat16:
		widenBrain(dst, src)
	default:
		n, m := c.from.Size(), c.to.Size()
		for i := range len(src) / n {
			x := load(c.from, src[i*n:])
			y := x
			if c.roundFloat16 {
				y = math.Float32frombits(halfToFloat[toFloat16(y)])
			}
			if !store(c.to, dst[i*m:], y) || isInf(y) && !isInf(x) {
				if overflow < 0 {
					overflow = i
				}
			}
		}
	}
	return overflow
}

// widenHalf writes a float32 for each float16, four at a time, which spares most checks of bounds.
func widenHalf(dst, src []byte) {
	for len(src) >= 8 && len(dst) >= 16 {
		h := binary.LittleEndian.Uint64(src)
		binary.LittleEndian.PutUint64(dst, uint64(halfToFloat[uint16(h)])|uint64(halfToFloat[uint16(h>>16)])<<32)
		binary.LittleEndian.PutUint64(dst[8:], uint64(halfToFloat[uint16(h>>32)])|uint64(halfToFloat[uint16(h>>48)])<<32)
		src, dst = src[8:], dst[16:]
	}
	for len(src) >= 2 {
		binary.LittleEndian.PutUint32(dst, halfToFloat[binary.LittleEndian.Uint16(src)])
		src, dst = src[2:], dst[4:]
	}
}

// widenBrain does the same for bfloat16, the upper half of a float32. (One generic function for
// both would call the part that differs through a table, at half the speed.)
func widenBrain(dst, src []byte) {
	for len(src) >= 8 && len(dst) >= 16 {
		h := binary.LittleEndian.Uint64(src)
		low := h&0xFFFF<<16 | h>>16&0xFFFF<<48
		high := h>>32&0xFFFF<<16 | h&(0xFFFF<<48)
		binary.LittleEndian.PutUint64(dst, low)
		binary.LittleEndian.PutUint64(dst[8:], high)
		src, dst = src[8:], dst[16:]
	}
	for len(src) >= 2 {
		binary.LittleEndian.PutUint32(dst, uint32(binary.LittleEndian.Uint16(src))<<16)
		src, dst = src[2:], dst[4:]
	}
}

// halfToFloat holds the float32 bits of every float16: a table is several times faster than taking
// bits apart.
var halfToFloat = func() *[1 << 16]uint32 {
	var table [1 << 16]uint32
	for i := range table {
		table[i] = math.Float32bits(float16.FromBits(uint16(i)).Float32())
	}
	return &table
}()

func load(t dtypes.DType, b []byte) float32 {
	switch t {
	case dtypes.Float32:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	case dtypes.Float16:
		return math.Float32frombits(halfToFloat[binary.LittleEndian.Uint16(b)])
	default:
		return bfloat16.FromBits(binary.LittleEndian.Uint16(b)).Float32()
	}
}

// store writes x and says whether it kept a finite number finite.
func store(t dtypes.DType, b []byte, x float32) bool {
	switch t {
	case dtypes.Float32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(x))
		return true
	case dtypes.Float16:
		h := toFloat16(x)
		binary.LittleEndian.PutUint16(b, h)
		return h&0x7FFF != 0x7C00 || isInf(x)
	default:
		v := bfloat16.FromFloat32(x)
		binary.LittleEndian.PutUint16(b, v.Bits())
		return v.Bits()&0x7FFF != 0x7F80 || isInf(x)
	}
}

func isInf(x float32) bool { return math.Float32bits(x)&0x7FFFFFFF == 0x7F800000 }

// toFloat16 rounds to nearest, ties to even. float16.FromFloat32 of compute v0.1.14 makes zero of
// numbers that round up to the smallest normal one, 2^-14 (TestToFloat16 shows it), so they are
// caught here.
func toFloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	// 2^-14 - 2^-25, the middle between the largest subnormal and 2^-14, and 2^-14 itself.
	const middle, smallestNormal = 0x387FE000, 0x38800000
	if abs := bits & 0x7FFFFFFF; abs >= middle && abs < smallestNormal {
		return uint16(bits>>16)&0x8000 | 0x0400
	}
	return float16.FromFloat32(x).Bits()
}
