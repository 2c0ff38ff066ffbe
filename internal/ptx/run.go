package ptx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Memory holds the arrays of the kernel's parameters, in order: []float32, []int32, []uint32,
// []uint16, []uint8, []float16.Float16 or []bfloat16.BFloat16.
type Memory []any

// Copies says when copies to shared memory are done on the host: a kernel has to give the same
// either way.
type Copies bool

const (
	Late  Copies = false // when they are waited for
	Early Copies = true  // at once
)

// Run executes the kernel on the host, for every program of the grid, one after the other. It is
// for tests: it does what the text says, in IEEE float32, where a GPU's exponentials are
// approximate. Reads and writes outside an array panic, and branches that only some lanes take.
func (k *Kernel) Run(grid [2]int, memory Memory, copies Copies) {
	labels := map[string]int{}
	for at, i := range k.instructions {
		if i.op == "label" {
			labels[i.label] = at
		}
	}
	for y := range grid[1] {
		for x := range grid[0] {
			r := &run{memory: memory, program: [2]int{x, y}, shared: make([]byte, k.shared), early: copies == Early}
			r.words, r.addresses = make([][Lanes]uint32, k.count[word]), make([][Lanes]uint64, k.count[address])
			r.predicates = make([][Lanes]bool, k.count[predicate])
			for i, p := range k.parameters {
				for lane := range Lanes {
					r.addresses[p.id][lane] = uint64(i+1) << offsetBits
				}
			}
			for at := 0; at < len(k.instructions); at++ {
				i := k.instructions[at]
				if i.op == "bra.uni" {
					if r.taken(i) {
						at = labels[i.label]
					}
					continue
				}
				r.do(i)
			}
		}
	}
}

// An address is the number of its parameter above the offset in bytes.
const offsetBits = 40

type run struct {
	memory     Memory
	program    [2]int
	words      [][Lanes]uint32
	addresses  [][Lanes]uint64
	predicates [][Lanes]bool

	shared []byte
	early  bool
	copies []copied   // begun
	groups [][]copied // under way
}

// copied is a copy of 16 bytes.
type copied struct {
	to   uint32
	from uint64
}

func (r *run) taken(i instruction) bool {
	if i.guard == nil {
		return true
	}
	p := r.predicates[i.guard.id]
	for _, x := range p {
		if x != p[0] {
			panic("ptx.Run: lanes part")
		}
	}
	return p[0]
}

func (r *run) word(v Value, lane int) uint32 {
	if v.class == constant {
		return v.bits
	}
	return r.words[v.id][lane]
}

func f32(x uint32) float32 { return math.Float32frombits(x) }

// fromF32 is a result; every NaN is the same one.
func fromF32(x float32) uint32 {
	if x != x {
		return 0x7fffffff
	}
	return math.Float32bits(x)
}

// simple are instructions on words of one lane.
var simple = map[string]func(a, b, c uint32) uint32{
	"mov.b32":    func(a, _, _ uint32) uint32 { return a },
	"add.s32":    func(a, b, _ uint32) uint32 { return a + b },
	"sub.s32":    func(a, b, _ uint32) uint32 { return a - b },
	"mul.lo.s32": func(a, b, _ uint32) uint32 { return a * b },
	"div.u32":    func(a, b, _ uint32) uint32 { return a / b },
	"rem.u32":    func(a, b, _ uint32) uint32 { return a % b },
	"min.s32":    func(a, b, _ uint32) uint32 { return uint32(min(int32(a), int32(b))) },
	"max.s32":    func(a, b, _ uint32) uint32 { return uint32(max(int32(a), int32(b))) },
	"mad.lo.s32": func(a, b, c uint32) uint32 { return a*b + c },
	"and.b32":    func(a, b, _ uint32) uint32 { return a & b },
	"or.b32":     func(a, b, _ uint32) uint32 { return a | b },
	"xor.b32":    func(a, b, _ uint32) uint32 { return a ^ b },
	"shr.u32":    func(a, b, _ uint32) uint32 { return a >> b },
	"shl.b32":    func(a, b, _ uint32) uint32 { return a << b },
	"prmt.b32": func(a, b, selector uint32) (out uint32) {
		for i := range 4 {
			at := selector >> (4 * i) & 7
			out |= uint32((uint64(b)<<32|uint64(a))>>(8*at)&0xff) << (8 * i)
		}
		return out
	},
	"add.rn.f32": func(a, b, _ uint32) uint32 { return fromF32(f32(a) + f32(b)) },
	"sub.rn.f32": func(a, b, _ uint32) uint32 { return fromF32(f32(a) - f32(b)) },
	"mul.rn.f32": func(a, b, _ uint32) uint32 { return fromF32(f32(a) * f32(b)) },
	// The product is exact in float64. The sum may be rounded twice, which in rare cases is off by
	// one in the last place.
	"fma.rn.f32": func(a, b, c uint32) uint32 {
		return fromF32(float32(float64(f32(a))*float64(f32(b)) + float64(f32(c))))
	},
	"fma.rn.sat.f32": func(a, b, c uint32) uint32 {
		sum := float64(f32(a))*float64(f32(b)) + float64(f32(c))
		if !(sum > 0) {
			return 0
		}
		return fromF32(float32(min(sum, 1)))
	},
	"abs.f32":            func(a, _, _ uint32) uint32 { return a & 0x7fffffff },
	"div.rn.f32":         func(a, b, _ uint32) uint32 { return fromF32(f32(a) / f32(b)) },
	"sqrt.rn.f32":        func(a, _, _ uint32) uint32 { return fromF32(float32(math.Sqrt(float64(f32(a))))) },
	"popc.b32":           func(a, _, _ uint32) uint32 { return uint32(bits.OnesCount32(a)) },
	"cvt.rn.f16x2.f32":   func(a, b, _ uint32) uint32 { return narrow(a)<<16 | narrow(b) },
	"max.f32":            func(a, b, _ uint32) uint32 { return ofNumbers(a, b, max(f32(a), f32(b))) },
	"min.f32":            func(a, b, _ uint32) uint32 { return ofNumbers(a, b, min(f32(a), f32(b))) },
	"div.full.f32":       func(a, b, _ uint32) uint32 { return fromF32(f32(a) / f32(b)) },
	"ex2.approx.ftz.f32": func(a, _, _ uint32) uint32 { return fromF32(flushed(float32(math.Exp2(float64(f32(a)))))) },
	"cvt.rn.f32.s32":     func(a, _, _ uint32) uint32 { return fromF32(float32(int32(a))) },
	"cvt.rn.bf16x2.f32":  func(a, b, _ uint32) uint32 { return rounded(a)&^0xffff | rounded(b)>>16 },
	"cvt.rni.s32.f32":    func(a, _, _ uint32) uint32 { return uint32(toInt(f32(a))) },
	"half.low":           func(a, _, _ uint32) uint32 { return fromF32(float16.Float16(a & 0xffff).Float32()) },
	"half.high":          func(a, _, _ uint32) uint32 { return fromF32(float16.Float16(a >> 16).Float32()) },
}

// toInt is the int32 next to x; 0 for NaN, the smallest or largest one beyond them.
func toInt(x float32) int32 {
	if x != x {
		return 0
	}
	return int32(max(math.MinInt32, min(math.MaxInt32, math.RoundToEven(float64(x)))))
}

// rounded has in its high half the bfloat16 next to a float32, halves to even.
func rounded(x uint32) uint32 {
	if f32(x) != f32(x) {
		return 0x7fff0000
	}
	return x + 0x7fff + x>>16&1
}

// narrow is the float16 next to a float32.
func narrow(x uint32) uint32 { return uint32(float16.FromFloat32(f32(x))) }

// ofNumbers is x, which was made of a and b, or the one of them that is a number.
func ofNumbers(a, b uint32, x float32) uint32 {
	switch {
	case f32(a) != f32(a):
		return b
	case f32(b) != f32(b):
		return a
	}
	return fromF32(x)
}

// flushed is 0 for subnormal numbers.
func flushed(x float32) float32 {
	if math.Abs(float64(x)) < 0x1p-126 {
		return 0
	}
	return x
}

// compares are comparisons of words of one lane.
var compares = map[string]func(a, b uint32) bool{
	"setp.eq.s32": func(a, b uint32) bool { return a == b },
	"setp.lt.s32": func(a, b uint32) bool { return int32(a) < int32(b) },
	"setp.le.u32": func(a, b uint32) bool { return a <= b },
	"setp.lt.u32": func(a, b uint32) bool { return a < b },
	"setp.lt.f32": func(a, b uint32) bool { return f32(a) < f32(b) },
	"setp.le.f32": func(a, b uint32) bool { return f32(a) <= f32(b) },
}

func (r *run) do(i instruction) {
	if f, ok := simple[i.op]; ok {
		var out [Lanes]uint32
		for lane := range out {
			var in [3]uint32
			for j, v := range i.from {
				in[j] = r.word(v, lane)
			}
			out[lane] = f(in[0], in[1], in[2])
		}
		r.words[i.to[0].id] = out
		return
	}
	switch i.op {
	case "label", "bar.warp.sync":
		return
	case "vote.sync.all.pred":
		all := true
		for _, x := range r.predicates[i.from[0].id] {
			all = all && x
		}
		for lane := range Lanes {
			r.predicates[i.to[0].id][lane] = all
		}
		return
	case "vote.sync.ballot.b32":
		var all uint32
		for lane, x := range r.predicates[i.from[0].id] {
			if x {
				all |= 1 << lane
			}
		}
		for lane := range Lanes {
			r.words[i.to[0].id][lane] = all
		}
		return
	case "redux.sync.max.u32":
		var most uint32
		for lane := range Lanes {
			most = max(most, r.word(i.from[0], lane))
		}
		for lane := range Lanes {
			r.words[i.to[0].id][lane] = most
		}
		return
	case "shfl.sync.idx.b32", "shfl.sync.bfly.b32":
		var out [Lanes]uint32
		for lane := range out {
			from := r.word(i.from[1], lane)
			if i.op == "shfl.sync.bfly.b32" {
				from ^= uint32(lane)
			}
			out[lane] = r.word(i.from[0], int(from%Lanes))
		}
		r.words[i.to[0].id] = out
		return
	case "cp.async.commit_group":
		r.groups, r.copies = append(r.groups, r.copies), nil
		return
	case "cp.async.wait_group":
		for len(r.groups) > int(i.from[0].bits) {
			for _, c := range r.groups[0] {
				r.copy(c)
			}
			r.groups = r.groups[1:]
		}
		return
	case unitsOf[F16]:
		r.units(i, func(x uint32) float32 { return float16.Float16(x).Float32() })
		return
	case unitsOf[BF16]:
		r.units(i, func(x uint32) float32 { return f32(x << 16) })
		return
	case "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32":
		r.unitsBytes(i)
		return
	}
	for lane := range Lanes {
		if i.guard == nil || r.predicates[i.guard.id][lane] {
			r.lane(i, lane)
		}
	}
}

// lane does an instruction in one lane.
func (r *run) lane(i instruction, lane int) {
	if f, ok := compares[i.op]; ok {
		r.predicates[i.to[0].id][lane] = f(r.word(i.from[0], lane), r.word(i.from[1], lane))
		return
	}
	switch i.op {
	case "mov.u32 memory":
		r.words[i.to[0].id][lane] = 0
	case "mov.u32 %laneid":
		r.words[i.to[0].id][lane] = uint32(lane)
	case "mov.u32 %ctaid.x":
		r.words[i.to[0].id][lane] = uint32(r.program[0])
	case "mov.u32 %ctaid.y":
		r.words[i.to[0].id][lane] = uint32(r.program[1])
	case "mov.b64":
		r.addresses[i.to[0].id][lane] = r.addresses[i.from[0].id][lane]
	case "mov.pred":
		r.predicates[i.to[0].id][lane] = r.predicates[i.from[0].id][lane]
	case "and.pred":
		r.predicates[i.to[0].id][lane] = r.predicates[i.from[0].id][lane] && r.predicates[i.from[1].id][lane]
	case "mad.wide.u32":
		r.addresses[i.to[0].id][lane] = uint64(r.word(i.from[0], lane))*uint64(r.word(i.from[1], lane)) + r.addresses[i.from[2].id][lane]
	case "selp.b32":
		from := i.from[1]
		if r.predicates[i.from[2].id][lane] {
			from = i.from[0]
		}
		r.words[i.to[0].id][lane] = r.word(from, lane)
	case "selp.b64":
		from := i.from[1]
		if r.predicates[i.from[2].id][lane] {
			from = i.from[0]
		}
		r.addresses[i.to[0].id][lane] = r.addresses[from.id][lane]
	case "testp.finite.f32":
		r.predicates[i.to[0].id][lane] = r.word(i.from[0], lane)&0x7fffffff < 0x7f800000
	case "st.shared.b32", "st.shared.v2.b32", "st.shared.v4.b32":
		at := int(r.word(i.from[0], lane)) + i.offset
		if at%(4*len(i.from[1:])) != 0 {
			exceptions.Panicf("ptx.Run: %s at %d", i.op, at)
		}
		for j, v := range i.from[1:] {
			binary.LittleEndian.PutUint32(r.shared[at+4*j:], r.word(v, lane))
		}
	case "ld.global.nc.v2.b32", "ld.global.nc.v4.b32":
		at := r.addresses[i.from[0].id][lane] + uint64(i.offset)
		if at%uint64(4*len(i.to)) != 0 {
			exceptions.Panicf("ptx.Run: %s at %d", i.op, at)
		}
		for j, to := range i.to {
			var x [4]byte
			r.read(at+uint64(4*j), x[:])
			r.words[to.id][lane] = binary.LittleEndian.Uint32(x[:])
		}
	case "ld.global.nc.b32", "ld.global.nc.u16", "ld.global.nc.u8":
		size := map[string]int{"ld.global.nc.b32": 4, "ld.global.nc.u16": 2, "ld.global.nc.u8": 1}[i.op]
		var x [4]byte
		r.read(r.addresses[i.from[0].id][lane]+uint64(i.offset), x[:size])
		r.words[i.to[0].id][lane] = binary.LittleEndian.Uint32(x[:])
	case "ld.shared.b32", "ld.shared.v2.b32", "ld.shared.v4.b32":
		at := int(r.word(i.from[0], lane)) + i.offset
		if at%(4*len(i.to)) != 0 {
			exceptions.Panicf("ptx.Run: %s at %d", i.op, at)
		}
		for j, to := range i.to {
			r.words[to.id][lane] = binary.LittleEndian.Uint32(r.shared[at+4*j:])
		}
	case "st.global.b32", "st.global.v2.b32", "st.global.v4.b32":
		at := r.addresses[i.from[0].id][lane] + uint64(i.offset)
		if at%uint64(4*len(i.from[1:])) != 0 {
			exceptions.Panicf("ptx.Run: %s at %d", i.op, at)
		}
		for j, v := range i.from[1:] {
			r.write(at+uint64(4*j), r.word(v, lane))
		}
	case "st.global.b16":
		r.writeLow(r.addresses[i.from[0].id][lane]+uint64(i.offset), uint16(r.word(i.from[1], lane)))
	case "st.global.b8":
		array, offset := r.place(r.addresses[i.from[0].id][lane] + uint64(i.offset))
		array.([]uint8)[offset] = uint8(r.word(i.from[1], lane))
	case "cp.async":
		c := copied{r.word(i.from[0], lane) + uint32(i.offset), r.addresses[i.from[1].id][lane] + uint64(i.second)}
		if c.to%16 != 0 || c.from%16 != 0 {
			exceptions.Panicf("ptx.Run: a copy from %d to %d", c.from, c.to)
		}
		if r.early {
			r.copy(c)
		} else {
			r.copies = append(r.copies, c)
		}
	default:
		exceptions.Panicf("ptx.Run: instruction %s", i.op)
	}
}

func (r *run) copy(c copied) { r.read(c.from, r.shared[c.to:c.to+16]) }

// units is [Kernel.Units], summed in float32 one product after the other.
func (r *run) units(i instruction, number func(uint32) float32) {
	half := func(v Value, lane, high int) float32 { return number(r.words[v.id][lane] >> (16 * high) & 0xffff) }
	var a [16][16]float32
	var b [16][8]float32
	for lane := range Lanes {
		g, t := lane/4, lane%4
		for high := range 2 {
			for j := range 4 { // rows g, g+8, g, g+8 of columns from 0, 0, 8, 8 on
				a[g+j%2*8][2*t+high+j/2*8] = half(i.from[j], lane, high)
			}
			for j := range 2 {
				b[2*t+high+8*j][g] = half(i.from[4+j], lane, high)
			}
		}
	}
	r.tile(i, func(row, column int, before uint32) uint32 {
		sum := f32(before)
		for at := range 16 {
			sum += a[row][at] * b[at][column]
		}
		return fromF32(sum)
	})
}

// unitsBytes is [Kernel.UnitsBytes].
func (r *run) unitsBytes(i instruction) {
	part := func(v Value, lane, at int) uint32 { return r.words[v.id][lane] >> (8 * at) & 0xff }
	var a, b [16][32]int32 // b by column
	for lane := range Lanes {
		g, t := lane/4, lane%4
		for at := range 4 {
			for j := range 4 {
				a[g+j%2*8][4*t+at+j/2*16] = int32(part(i.from[j], lane, at))
			}
			for j := range 2 {
				b[g][4*t+at+16*j] = int32(int8(part(i.from[4+j], lane, at)))
			}
		}
	}
	r.tile(i, func(row, column int, before uint32) uint32 {
		sum := int32(before)
		for at := range 32 {
			sum += a[row][at] * b[column][at]
		}
		return uint32(sum)
	})
}

// tile writes what tensor units leave of a product, 16 rows by 8 columns: four elements a lane,
// made of those that it brought.
func (r *run) tile(i instruction, sum func(row, column int, before uint32) uint32) {
	var out [4][Lanes]uint32
	for lane := range Lanes {
		for j := range 4 {
			out[j][lane] = sum(lane/4+j/2*8, lane%4*2+j%2, r.word(i.from[6+j], lane))
		}
	}
	for j, to := range i.to {
		r.words[to.id] = out[j]
	}
}

// place is the array and offset of an address.
func (r *run) place(address uint64) (array any, offset int) {
	return r.memory[address>>offsetBits-1], int(address & (1<<offsetBits - 1))
}

// read fills bytes with those from an address on.
func (r *run) read(address uint64, to []byte) {
	array, offset := r.place(address)
	for i := range to {
		at := offset + i
		switch a := array.(type) {
		case []float32:
			to[i] = byte(math.Float32bits(a[at/4]) >> (8 * (at % 4)))
		case []int32:
			to[i] = byte(a[at/4] >> (8 * (at % 4)))
		case []uint32:
			to[i] = byte(a[at/4] >> (8 * (at % 4)))
		case []uint16:
			to[i] = byte(a[at/2] >> (8 * (at % 2)))
		case []float16.Float16:
			to[i] = byte(a[at/2] >> (8 * (at % 2)))
		case []bfloat16.BFloat16:
			to[i] = byte(a[at/2] >> (8 * (at % 2)))
		case []uint8:
			to[i] = a[at]
		default:
			panic(fmt.Sprintf("ptx.Run: cannot read %T", array))
		}
	}
}

func (r *run) write(address uint64, x uint32) {
	array, offset := r.place(address)
	switch a := array.(type) {
	case []float32:
		a[offset/4] = f32(x)
	case []int32:
		a[offset/4] = int32(x)
	case []uint32:
		a[offset/4] = x
	case []float16.Float16, []bfloat16.BFloat16, []uint16:
		r.writeLow(address, uint16(x))
		r.writeLow(address+2, uint16(x>>16))
	default:
		panic(fmt.Sprintf("ptx.Run: cannot write %T", array))
	}
}

// writeLow writes a number of 16 bits.
func (r *run) writeLow(address uint64, x uint16) {
	array, offset := r.place(address)
	switch a := array.(type) {
	case []float16.Float16:
		a[offset/2] = float16.Float16(x)
	case []bfloat16.BFloat16:
		a[offset/2] = bfloat16.BFloat16(x)
	case []uint16:
		a[offset/2] = x
	default:
		panic(fmt.Sprintf("ptx.Run: cannot write 16 bits to %T", array))
	}
}
