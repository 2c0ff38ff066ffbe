package kernel

import (
	"math"

	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Scales and zero points in the kernel by tensor units: four neighbours at a time, as float32, from
// shared memory.

// scales are four scales.
func (u *units) scales(at ptx.Value, offset int) []ptx.Value {
	if u.storage == numbers.Scale8 {
		return u.byteScales(at, offset)
	}
	return u.four(at, offset)
}

// zeros are the zero points of a side that has them; scales are those beside them.
func (u *units) zeros(f codes.Format, at ptx.Value, offset int, scales []ptx.Value) []ptx.Value {
	if u.storage != numbers.Scale8 {
		return u.four(at, offset)
	}
	// A byte behind the bits of 2^23 units is 2^23 + byte of them.
	unit := numbers.ZeroUnit(f.Bits)
	origin := math.Ldexp(unit, 23)
	word := u.LoadShared(1, at, offset)[0]
	zeros := make([]ptx.Value, 4)
	for i := range zeros {
		x := u.And(u.shifted(word, 8*i), u.Int(0xff))
		x = u.Or(x, u.Bits(math.Float32bits(float32(origin))))
		zeros[i] = u.FMul(u.FSub(x, u.Float(float32(origin+numbers.ByteZeroOffset*unit))), scales[i])
	}
	return zeros
}

// four are four numbers of 16 or 32 bits.
func (u *units) four(at ptx.Value, offset int) []ptx.Value {
	if u.elem == ptx.F32 {
		return u.LoadShared(4, at, offset)
	}
	var list []ptx.Value
	for _, x := range u.LoadShared(2, at, offset) {
		list = append(list, u.Low(u.elem, x), u.High(u.elem, x))
	}
	return list
}

// byteScales are four scales in bytes. These have the first bits of a float32, subnormal ones too,
// but for what is added to the exponent.
func (u *units) byteScales(at ptx.Value, offset int) []ptx.Value {
	const up = 23 - numbers.ByteScaleMantissa
	word := u.LoadShared(1, at, offset)[0]
	exponent := u.Float(float32(math.Ldexp(1, numbers.ByteScaleOffset>>numbers.ByteScaleMantissa)))
	list := make([]ptx.Value, 4)
	for i := range list {
		x := u.shifted(word, 8*i-up)
		list[i] = u.FMul(u.And(x, u.Int(0xff<<up)), exponent)
	}
	return list
}
