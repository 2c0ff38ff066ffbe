package ttir

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Memory holds the arrays of the kernel's parameters, in order: []float32, []int32, []uint32,
// []uint16, []uint8, []float16.Float16 or []bfloat16.BFloat16.
type Memory []any

// Run executes the kernel on the host, for every program of the grid, one after the other. It is
// for tests: it does what the text says, in IEEE float32, where a GPU's exponentials are
// approximate. Reads and writes outside an array panic.
func (k *Kernel) Run(grid [3]int, memory Memory) {
	for z := range grid[2] {
		for y := range grid[1] {
			for x := range grid[0] {
				r := &run{memory: memory, program: [3]int{x, y, z}, values: make([]bits, k.next)}
				for i, p := range k.body.parameters {
					r.values[p.id] = bits{uint64(i) << offsetBits}
				}
				r.block(k.body)
			}
		}
	}
}

// bits are the elements of a value: float32 as its bits, int32 as uint32, a pointer as the number
// of its parameter above the offset in elements.
type bits []uint64

const offsetBits = 40

type run struct {
	memory  Memory
	program [3]int
	values  []bits
}

func (r *run) block(b *block) {
	for _, o := range b.ops {
		r.op(o)
	}
}

func (r *run) of(v Value) bits { return r.values[v.id] }

func f32(x uint64) float32     { return math.Float32frombits(uint32(x)) }
func fromF32(x float32) uint64 { return uint64(math.Float32bits(x)) }
func i32(x uint64) int32       { return int32(uint32(x)) }

var binaries = map[string]func(a, b uint64) uint64{
	"arith.addi":      func(a, b uint64) uint64 { return uint64(uint32(a + b)) },
	"arith.subi":      func(a, b uint64) uint64 { return uint64(uint32(a - b)) },
	"arith.muli":      func(a, b uint64) uint64 { return uint64(uint32(a * b)) },
	"arith.divsi":     func(a, b uint64) uint64 { return uint64(uint32(i32(a) / i32(b))) },
	"arith.remsi":     func(a, b uint64) uint64 { return uint64(uint32(i32(a) % i32(b))) },
	"arith.andi":      func(a, b uint64) uint64 { return a & b },
	"arith.shrui":     func(a, b uint64) uint64 { return uint64(uint32(a) >> b) },
	"arith.shli":      func(a, b uint64) uint64 { return uint64(uint32(a) << b) },
	"arith.minsi":     func(a, b uint64) uint64 { return uint64(uint32(min(i32(a), i32(b)))) },
	"arith.addf":      func(a, b uint64) uint64 { return fromF32(f32(a) + f32(b)) },
	"arith.subf":      func(a, b uint64) uint64 { return fromF32(f32(a) - f32(b)) },
	"arith.mulf":      func(a, b uint64) uint64 { return fromF32(f32(a) * f32(b)) },
	"arith.divf":      func(a, b uint64) uint64 { return fromF32(f32(a) / f32(b)) },
	"tt.precise_divf": func(a, b uint64) uint64 { return fromF32(f32(a) / f32(b)) },
	"arith.minnumf":   func(a, b uint64) uint64 { return fromF32(min(f32(a), f32(b))) },
	"arith.maxnumf":   func(a, b uint64) uint64 { return fromF32(max(f32(a), f32(b))) },
}

func (r *run) op(o *op) {
	if o.name == "scf.for" {
		r.loop(o)
		return
	}
	if o.name == "tt.store" {
		r.store(o)
		return
	}
	if o.name == "tt.split" {
		from := r.of(o.operands[0])
		for j, v := range o.results {
			part := make(bits, len(from)/2)
			for i := range part {
				part[i] = from[2*i+j]
			}
			r.values[v.id] = part
		}
		return
	}
	out := o.results[0]
	to := make(bits, size(out.Shape))
	r.values[out.id] = to
	var in [3]bits
	for i, v := range o.operands {
		in[i] = r.of(v)
	}
	if f, ok := binaries[o.name]; ok {
		for i := range to {
			to[i] = f(in[0][i], in[1][i])
		}
		return
	}
	switch o.name {
	case "tt.get_program_id":
		to[0] = uint64(r.program[o.ints[0]])
	case "arith.constant":
		to[0] = fromF32(o.float)
		if out.Elem == I32 {
			to[0] = uint64(uint32(o.ints[0]))
		}
	case "tt.make_range":
		for i := range to {
			to[i] = uint64(i)
		}
	case "tt.splat":
		for i := range to {
			to[i] = in[0][0]
		}
	case "tt.expand_dims", "tt.reshape", "tt.bitcast", "arith.extui":
		copy(to, in[0])
	case "tt.broadcast", "tt.trans":
		r.gather(o, to, in[0])
	case "tt.reduce":
		r.reduce(o, to, in[0])
	case "tt.addptr":
		for i := range to {
			to[i] = in[0][i] + uint64(int64(i32(in[1][i])))
		}
	case "tt.load":
		for i := range to {
			to[i] = r.load(in[0][i])
		}
	case "arith.cmpi":
		for i := range to {
			a, b := i32(in[0][i]), i32(in[1][i])
			if equal := o.ints[0] != 2; a == b && equal || a < b && o.ints[0] != 0 {
				to[i] = 1
			}
		}
	case "arith.cmpf":
		for i := range to {
			if f32(in[0][i]) < f32(in[1][i]) {
				to[i] = 1
			}
		}
	case "arith.select":
		for i := range to {
			to[i] = in[2][i]
			if in[0][i] != 0 {
				to[i] = in[1][i]
			}
		}
	case "arith.trunci":
		for i := range to {
			to[i] = in[0][i] & 0xff
		}
	case "arith.sitofp":
		for i := range to {
			to[i] = fromF32(float32(i32(in[0][i])))
		}
	case "arith.extf":
		for i := range to {
			if o.operands[0].Elem == F16 {
				to[i] = fromF32(float16.Float16(in[0][i]).Float32())
			} else {
				to[i] = in[0][i] << 16
			}
		}
	case "math.fma":
		for i := range to {
			// The product is exact in float64. The sum may be rounded twice, which in rare cases is
			// off by one in the last place.
			to[i] = fromF32(float32(float64(f32(in[0][i]))*float64(f32(in[1][i])) + float64(f32(in[2][i]))))
		}
	case "arith.truncf":
		for i := range to {
			if x := f32(in[0][i]); out.Elem == F16 {
				to[i] = uint64(float16.FromFloat32(x))
			} else {
				to[i] = uint64(bfloat16.FromFloat32(x))
			}
		}
	case "tt.precise_sqrt":
		for i := range to {
			to[i] = fromF32(float32(math.Sqrt(float64(f32(in[0][i])))))
		}
	case "math.exp2":
		for i := range to {
			to[i] = fromF32(float32(math.Exp2(float64(f32(in[0][i])))))
		}
	default:
		exceptions.Panicf("ttir.Run: operation %s", o.name)
	}
}

// gather copies by index, for broadcasts and transposes.
func (r *run) gather(o *op, to, from bits) {
	in, out := o.operands[0].Shape, o.results[0].Shape
	strides := make([]int, len(in)) // of the operand
	for i, n := len(in)-1, 1; i >= 0; i-- {
		strides[i] = n
		n *= in[i]
	}
	step := make([]int, len(out)) // in the operand, along an axis of the result
	for i := range out {
		if o.name == "tt.trans" {
			step[i] = strides[o.ints[i]]
		} else if in[i] > 1 {
			step[i] = strides[i]
		}
	}
	for i := range to {
		at := 0
		for axis, rest := len(out)-1, i; axis >= 0; axis-- {
			at += rest % out[axis] * step[axis]
			rest /= out[axis]
		}
		to[i] = from[at]
	}
}

func (r *run) reduce(o *op, to, from bits) {
	in, axis := o.operands[0].Shape, o.ints[0]
	inner := size(in[axis+1:])
	n := in[axis]
	f := binaries["arith."+o.combine]
	for i := range to {
		first := i/inner*n*inner + i%inner
		x := from[first]
		for j := 1; j < n; j++ {
			x = f(x, from[first+j*inner])
		}
		to[i] = x
	}
}

func (r *run) loop(o *op) {
	from, to, step := i32(r.of(o.operands[0])[0]), i32(r.of(o.operands[1])[0]), i32(r.of(o.operands[2])[0])
	carried := make([]bits, len(o.results))
	for i := range carried {
		carried[i] = r.of(o.operands[3+i])
	}
	for ; from < to; from += step {
		r.values[o.body.parameters[0].id] = bits{uint64(uint32(from))}
		for i, c := range carried {
			r.values[o.body.parameters[1+i].id] = c
		}
		r.block(o.body)
		for i, v := range o.body.results {
			carried[i] = r.of(v)
		}
	}
	for i, v := range o.results {
		r.values[v.id] = carried[i]
	}
}

// place is the array and index of an address.
func (r *run) place(address uint64) (array any, index int) {
	return r.memory[address>>offsetBits], int(address & (1<<offsetBits - 1))
}

func (r *run) load(address uint64) uint64 {
	array, i := r.place(address)
	switch a := array.(type) {
	case []float32:
		return fromF32(a[i])
	case []int32:
		return uint64(uint32(a[i]))
	case []uint32:
		return uint64(a[i])
	case []uint16:
		return uint64(a[i])
	case []uint8:
		return uint64(a[i])
	case []float16.Float16:
		return uint64(a[i])
	case []bfloat16.BFloat16:
		return uint64(a[i])
	}
	panic(fmt.Sprintf("ttir.Run: cannot read %T", array))
}

func (r *run) store(o *op) {
	addresses, values := r.of(o.operands[0]), r.of(o.operands[1])
	for i, address := range addresses {
		array, at := r.place(address)
		switch a := array.(type) {
		case []float32:
			a[at] = f32(values[i])
		case []int32:
			a[at] = i32(values[i])
		case []uint32:
			a[at] = uint32(values[i])
		case []uint8:
			a[at] = uint8(values[i])
		case []float16.Float16:
			a[at] = float16.Float16(values[i])
		case []bfloat16.BFloat16:
			a[at] = bfloat16.BFloat16(values[i])
		default:
			panic(fmt.Sprintf("ttir.Run: cannot write %T", array))
		}
	}
}
