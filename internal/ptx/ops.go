package ptx

import "github.com/gomlx/gomlx/support/exceptions"

// words checks operands of 32 bits.
func (k *Kernel) words(name string, from ...Value) Value {
	want(name, word, from...)
	return k.op(name, word, from...)
}

// Add is a + b, of int32.
func (k *Kernel) Add(a, b Value) Value { return k.words("add.s32", a, b) }

// Sub is a - b, of int32.
func (k *Kernel) Sub(a, b Value) Value { return k.words("sub.s32", a, b) }

// Mul is the low half of a·b, of int32.
func (k *Kernel) Mul(a, b Value) Value { return k.words("mul.lo.s32", a, b) }

// Div is a/b, of uint32.
func (k *Kernel) Div(a, b Value) Value { return k.words("div.u32", a, b) }

// Rem is what Div leaves over.
func (k *Kernel) Rem(a, b Value) Value { return k.words("rem.u32", a, b) }

// Min is the smaller int32.
func (k *Kernel) Min(a, b Value) Value { return k.words("min.s32", a, b) }

// Max is the larger int32.
func (k *Kernel) Max(a, b Value) Value { return k.words("max.s32", a, b) }

// And is a & b.
func (k *Kernel) And(a, b Value) Value { return k.words("and.b32", a, b) }

// Or is a | b.
func (k *Kernel) Or(a, b Value) Value { return k.words("or.b32", a, b) }

// Xor is a ^ b.
func (k *Kernel) Xor(a, b Value) Value { return k.words("xor.b32", a, b) }

// ShiftRight is a >> b, of uint32.
func (k *Kernel) ShiftRight(a, b Value) Value { return k.words("shr.u32", a, b) }

// ShiftLeft is a << b.
func (k *Kernel) ShiftLeft(a, b Value) Value { return k.words("shl.b32", a, b) }

// MulAdd is the low half of a·b + c, of int32.
func (k *Kernel) MulAdd(a, b, c Value) Value { return k.words("mad.lo.s32", a, b, c) }

// Permute makes a word of four of the eight bytes of a and b. Digit i of the selector says which is
// byte i of the result: 0 to 3 those of a, 4 to 7 those of b.
func (k *Kernel) Permute(a, b, selector Value) Value { return k.words("prmt.b32", a, b, selector) }

// HighHalves are the high 16 bits of a, below those of b.
func (k *Kernel) HighHalves(a, b Value) Value { return k.words("prmt.b32", a, b, k.Bits(0x7632)) }

// LowHalves are the low 16 bits of a, below those of b.
func (k *Kernel) LowHalves(a, b Value) Value { return k.words("prmt.b32", a, b, k.Bits(0x5410)) }

// Halves are a and b, float32, rounded to numbers of 16 bits: a is the low half.
func (k *Kernel) Halves(e Elem, a, b Value) Value {
	return k.words(map[Elem]string{F16: "cvt.rn.f16x2.f32", BF16: "cvt.rn.bf16x2.f32"}[e], b, a)
}

// InHalves are a and b, float32, as bfloat16 numbers, and what these miss: right to 2^-16 together.
func (k *Kernel) InHalves(a, b Value) (near, miss Value) {
	near = k.Halves(BF16, a, b)
	return near, k.Halves(BF16, k.FSub(a, k.Low(BF16, near)), k.FSub(b, k.High(BF16, near)))
}

// CountBits is how many bits of a are 1.
func (k *Kernel) CountBits(a Value) Value { return k.words("popc.b32", a) }

// FAdd is a + b, of float32.
func (k *Kernel) FAdd(a, b Value) Value { return k.words("add.rn.f32", a, b) }

// FSub is a - b, of float32.
func (k *Kernel) FSub(a, b Value) Value { return k.words("sub.rn.f32", a, b) }

// FMul is a·b, of float32.
func (k *Kernel) FMul(a, b Value) Value { return k.words("mul.rn.f32", a, b) }

// FMulAdd is a·b + c of float32, rounded once.
func (k *Kernel) FMulAdd(a, b, c Value) Value { return k.words("fma.rn.f32", a, b, c) }

// FMulAddWithin1 is a·b + c of float32 rounded once, from 0 to 1; 0 for NaN.
func (k *Kernel) FMulAddWithin1(a, b, c Value) Value { return k.words("fma.rn.sat.f32", a, b, c) }

// FAbs is |a| of float32.
func (k *Kernel) FAbs(a Value) Value { return k.words("abs.f32", a) }

// FMax is the larger float32; of a number and NaN, the number.
func (k *Kernel) FMax(a, b Value) Value { return k.words("max.f32", a, b) }

// FMin is the smaller float32; of a number and NaN, the number.
func (k *Kernel) FMin(a, b Value) Value { return k.words("min.f32", a, b) }

// FDiv is a/b of float32, off by two units in the last place on a GPU.
func (k *Kernel) FDiv(a, b Value) Value { return k.words("div.full.f32", a, b) }

// FQuotient is a/b of float32, correctly rounded.
func (k *Kernel) FQuotient(a, b Value) Value { return k.words("div.rn.f32", a, b) }

// FSqrt is the root of a, correctly rounded.
func (k *Kernel) FSqrt(a Value) Value { return k.words("sqrt.rn.f32", a) }

// Exp2 is 2^a of float32, on a GPU off by a few units in the last place; 0 below 2^-126.
func (k *Kernel) Exp2(a Value) Value { return k.words("ex2.approx.ftz.f32", a) }

// FromInt is an int32 as float32.
func (k *Kernel) FromInt(a Value) Value { return k.words("cvt.rn.f32.s32", a) }

// ToInt is the int32 next to a float32, halves to even.
func (k *Kernel) ToInt(a Value) Value { return k.words("cvt.rni.s32.f32", a) }

// Elem is the type of numbers in memory.
type Elem int

const (
	F32 Elem = iota
	F16
	BF16
)

// Bytes is the size of an element.
func (e Elem) Bytes() int {
	if e == F32 {
		return 4
	}
	return 2
}

// Low is the low 16 bits of a, a number of 16 bits, as float32.
func (k *Kernel) Low(e Elem, a Value) Value {
	if e == BF16 {
		return k.ShiftLeft(a, k.Int(16))
	}
	return k.words("half.low", a)
}

// High is the high 16 bits of a, a number of 16 bits, as float32.
func (k *Kernel) High(e Elem, a Value) Value {
	if e == BF16 {
		return k.And(a, k.Bits(0xffff0000))
	}
	return k.words("half.high", a)
}

// Equal is a == b, of 32 bits.
func (k *Kernel) Equal(a, b Value) Value { return k.compare("setp.eq.s32", a, b) }

// Less is a < b, of int32.
func (k *Kernel) Less(a, b Value) Value { return k.compare("setp.lt.s32", a, b) }

// AtMostUnsigned is a <= b, of uint32.
func (k *Kernel) AtMostUnsigned(a, b Value) Value { return k.compare("setp.le.u32", a, b) }

// LessUnsigned is a < b, of uint32.
func (k *Kernel) LessUnsigned(a, b Value) Value { return k.compare("setp.lt.u32", a, b) }

// FAtMost is a <= b, of float32.
func (k *Kernel) FAtMost(a, b Value) Value { return k.compare("setp.le.f32", a, b) }

// FLess is a < b, of float32.
func (k *Kernel) FLess(a, b Value) Value { return k.compare("setp.lt.f32", a, b) }

// Finite holds where float32 is a number that is not infinite.
func (k *Kernel) Finite(a Value) Value {
	want("testp", word, a)
	return k.op("testp.finite.f32", predicate, a)
}

func (k *Kernel) compare(name string, a, b Value) Value {
	want(name, word, a, b)
	return k.op(name, predicate, a, b)
}

// Both holds where both conditions do.
func (k *Kernel) Both(a, b Value) Value {
	want("and.pred", predicate, a, b)
	return k.op("and.pred", predicate, a, b)
}

// All holds where the condition holds in all lanes.
func (k *Kernel) All(condition Value) Value {
	want("vote", predicate, condition)
	return k.op("vote.sync.all.pred", predicate, condition)
}

// Lanes are those in which the condition holds, a bit each, the first one the lowest.
func (k *Kernel) Lanes(condition Value) Value {
	want("vote", predicate, condition)
	return k.op("vote.sync.ballot.b32", word, condition)
}

// Select is a where the condition holds, else b: of 32 bits, or addresses.
func (k *Kernel) Select(condition, a, b Value) Value {
	want("select", predicate, condition)
	if a.class == address {
		want("select", address, b)
		return k.op("selp.b64", address, a, b, condition)
	}
	want("select", word, a, b)
	return k.op("selp.b32", word, a, b, condition)
}

// FromLane is a of another lane.
func (k *Kernel) FromLane(a, lane Value) Value { return k.words("shfl.sync.idx.b32", a, lane) }

// Across is a of the lane whose number differs in the bits of mask.
func (k *Kernel) Across(a Value, mask int) Value {
	return k.words("shfl.sync.bfly.b32", a, k.Int(mask))
}

// MaxUnsigned is the largest uint32 that a lane has.
func (k *Kernel) MaxUnsigned(a Value) Value { return k.words("redux.sync.max.u32", a) }

// At is an address index·bytes behind another; index is uint32.
func (k *Kernel) At(base, index Value, bytes int) Value {
	return k.AtBy(base, index, k.Int(bytes))
}

// AtBy is an address index·bytes behind another; both are uint32.
func (k *Kernel) AtBy(base, index, bytes Value) Value {
	want("address", address, base)
	want("address", word, index, bytes)
	return k.op("mad.wide.u32", address, index, bytes, base)
}

// Load reads a number of memory, as float32, at an address and so many bytes behind it.
func (k *Kernel) Load(e Elem, at Value, offset int) Value {
	if e == F32 {
		return k.LoadWord(at, offset)
	}
	return k.Low(e, k.load("ld.global.nc.u16", 1, at, offset)[0])
}

// LoadByte reads a byte.
func (k *Kernel) LoadByte(at Value, offset int) Value {
	return k.load("ld.global.nc.u8", 1, at, offset)[0]
}

// LoadWord reads 32 bits.
func (k *Kernel) LoadWord(at Value, offset int) Value {
	return k.load("ld.global.nc.b32", 1, at, offset)[0]
}

// LoadWords reads 4 words, at a place that is a multiple of their size.
func (k *Kernel) LoadWords(at Value, offset int) []Value {
	return k.load("ld.global.nc.v4.b32", 4, at, offset)
}

// LoadPair reads 2 words, at a place that is a multiple of their size.
func (k *Kernel) LoadPair(at Value, offset int) []Value {
	return k.load("ld.global.nc.v2.b32", 2, at, offset)
}

func (k *Kernel) load(name string, n int, at Value, offset int) []Value {
	want(name, address, at)
	to := k.registers(n)
	k.emit(instruction{op: name, to: to, from: []Value{at}, offset: offset})
	return to
}

// LoadShared reads 1, 2 or 4 words of shared memory at a place and so many bytes behind it,
// together a multiple of their size.
func (k *Kernel) LoadShared(n int, at Value, offset int) []Value {
	want("ld.shared", word, at)
	name, ok := map[int]string{1: "ld.shared.b32", 2: "ld.shared.v2.b32", 4: "ld.shared.v4.b32"}[n]
	if !ok {
		exceptions.Panicf("ptx: %d words at once", n)
	}
	to := k.registers(n)
	k.emit(instruction{op: name, to: to, from: []Value{at}, offset: offset})
	return to
}

// StoreShared writes 1, 2 or 4 words of shared memory at a place and so many bytes behind it,
// together a multiple of their size.
func (k *Kernel) StoreShared(at Value, offset int, values ...Value) {
	k.StoreSharedIf(nil, at, offset, values...)
}

// StoreSharedIf is StoreShared in lanes where the condition holds.
func (k *Kernel) StoreSharedIf(condition *Value, at Value, offset int, values ...Value) {
	want("st.shared", word, at)
	want("st.shared", word, values...)
	name, ok := map[int]string{1: "st.shared.b32", 2: "st.shared.v2.b32", 4: "st.shared.v4.b32"}[len(values)]
	if !ok {
		exceptions.Panicf("ptx: %d words at once", len(values))
	}
	k.emit(instruction{op: name, from: append([]Value{at}, values...), offset: offset, guard: condition})
}

// StoreLow writes the low 1, 2 or 4 bytes of a word to memory.
func (k *Kernel) StoreLow(bytes int, at Value, offset int, value Value) {
	want("store", address, at)
	want("store", word, value)
	name, ok := map[int]string{1: "st.global.b8", 2: "st.global.b16", 4: "st.global.b32"}[bytes]
	if !ok {
		exceptions.Panicf("ptx: %d bytes at once", bytes)
	}
	k.emit(instruction{op: name, from: []Value{at, value}, offset: offset})
}

// Meet waits for all lanes: what they wrote to shared memory before is there for the others.
func (k *Kernel) Meet() { k.emit(instruction{op: "bar.warp.sync"}) }

// Store writes 1, 2 or 4 words to memory, in lanes where the condition holds.
func (k *Kernel) Store(condition, at Value, offset int, values ...Value) {
	want("store", predicate, condition)
	want("store", address, at)
	want("store", word, values...)
	name, ok := map[int]string{1: "st.global.b32", 2: "st.global.v2.b32", 4: "st.global.v4.b32"}[len(values)]
	if !ok {
		exceptions.Panicf("ptx: %d words at once", len(values))
	}
	k.emit(instruction{op: name, from: append([]Value{at}, values...), offset: offset, guard: &condition})
}

// Copy begins to copy 16 bytes of memory to shared memory, each so many bytes behind its address,
// in lanes where the condition holds. [Kernel.Commit] closes a group of copies.
func (k *Kernel) Copy(condition, to Value, toOffset int, from Value, fromOffset int) {
	want("copy", predicate, condition)
	want("copy", word, to)
	want("copy", address, from)
	k.emit(instruction{op: "cp.async", from: []Value{to, from}, offset: toOffset, second: fromOffset, guard: &condition})
}

// Commit makes a group of the copies begun since the last one.
func (k *Kernel) Commit() { k.emit(instruction{op: "cp.async.commit_group"}) }

// Await waits until no more than so many groups of copies are under way, in all lanes.
func (k *Kernel) Await(groups int) {
	k.emit(instruction{op: "cp.async.wait_group", from: []Value{k.Int(groups)}})
	k.Meet()
}

// Units is a product of tensor units, a·b + c. a is [16, 16] and b [16, 8], of numbers of 16 bits,
// subnormal ones too, two in a word; c and the result are [16, 8] float32. Lane 4g + t has
//
//	a  rows g and g + 8 of columns 2t and 2t + 1; the same rows of columns 2t + 8 and 2t + 9
//	b  rows 2t and 2t + 1 of column g; rows 2t + 8 and 2t + 9
//	c  columns 2t and 2t + 1 of row g; the same of row g + 8
func (k *Kernel) Units(e Elem, a [4]Value, b [2]Value, c [4]Value) (out [4]Value) {
	for i, v := range c {
		if v.class == constant {
			c[i] = k.Variable(v) // the instruction takes none
		}
	}
	from := append(append(append([]Value{}, a[:]...), b[:]...), c[:]...)
	want("mma", word, from...)
	to := k.registers(4)
	k.emit(instruction{op: unitsOf[e], to: to, from: from})
	return [4]Value(to)
}

// unitsOf are the instructions of tensor units.
var unitsOf = map[Elem]string{
	F16:  "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
	BF16: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
}

// UnitsBytes is a product of tensor units, a·b + c, exact. a is [16, 32] of bytes from 0 to 255 and
// b [32, 8] of bytes from -128 to 127, four in a word; c and the result are [16, 8] int32. Lane
// 4g + t has
//
//	a  rows g and g + 8 of columns 4t to 4t + 3; the same rows of columns 4t + 16 to 4t + 19
//	b  rows 4t to 4t + 3 of column g; rows 4t + 16 to 4t + 19
//	c  as [Kernel.Units]
func (k *Kernel) UnitsBytes(a [4]Value, b [2]Value, c [4]Value) (out [4]Value) {
	for i, v := range c {
		if v.class == constant {
			c[i] = k.Variable(v)
		}
	}
	from := append(append(append([]Value{}, a[:]...), b[:]...), c[:]...)
	want("mma", word, from...)
	to := k.registers(4)
	k.emit(instruction{op: "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32", to: to, from: from})
	return [4]Value(to)
}
