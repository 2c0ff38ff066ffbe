// Package ptx writes kernels in PTX, the assembly language of NVIDIA's GPUs, as the text that XLA's
// CUDA compiler takes in a custom call ([Target]). It knows no attention.
//
// A program is one warp: 32 lanes that do the same instructions, each with registers of its own.
// What package ttir leaves to a compiler is said here: which lane holds which number. That is what
// tensor units ask for ([Kernel.Units]), and copies to shared memory that are under way while the
// warp computes ([Kernel.Copy]).
//
// A kernel is a list of instructions, so [Kernel.Run] can execute it on the host, for tests on
// machines without a GPU. Branches are for the whole warp.
//
// Functions panic where types do not fit, as functions that build graphs do: a kernel is part of a
// graph.
package ptx

import (
	"math"
	"strconv"

	"github.com/gomlx/gomlx/support/exceptions"
)

// Target is what a custom call of a kernel is called in a program.
const Target = "__gpu$xla.gpu.ptx"

// Lanes is how many lanes a warp has.
const Lanes = 32

// class is a kind of registers.
type class byte

const (
	word      class = 'r' // 32 bits: integers and float32
	address   class = 'd' // 64 bits
	predicate class = 'p'
	constant  class = 'c' // 32 bits, in the instruction itself
)

// Value is a register of every lane, or a constant.
type Value struct {
	class class
	id    int    // of a register
	bits  uint32 // of a constant
}

// instruction is one instruction.
type instruction struct {
	op     string
	to     []Value
	from   []Value
	offset int    // in bytes, beside an address
	second int    // beside the second address of a copy
	label  string // of a branch, or the label itself
	guard  *Value // a predicate: lanes without it do nothing
}

// Kernel is a kernel under construction. Its parameters are pointers, first to what it reads, then
// to what it writes. Make one with [New]; it is not safe for concurrent use.
type Kernel struct {
	Name string
	// Registers is the most 32-bit registers that a lane may have; 0: as many as there are.
	Registers int

	instructions []instruction
	parameters   []Value
	count        map[class]int
	labels       int
	shared       int // bytes of shared memory
}

// New begins a kernel. The name has to be a plain identifier.
func New(name string) *Kernel { return &Kernel{Name: name, count: map[class]int{}} }

func (k *Kernel) register(c class) Value {
	k.count[c]++
	return Value{class: c, id: k.count[c] - 1}
}

func (k *Kernel) registers(n int) []Value {
	list := make([]Value, n)
	for i := range list {
		list[i] = k.register(word)
	}
	return list
}

func (k *Kernel) emit(i instruction) { k.instructions = append(k.instructions, i) }

// op adds an instruction with one result.
func (k *Kernel) op(name string, result class, from ...Value) Value {
	to := k.register(result)
	k.emit(instruction{op: name, to: []Value{to}, from: from})
	return to
}

func want(what string, c class, values ...Value) {
	for _, v := range values {
		if v.class != c && (c != word || v.class != constant) {
			exceptions.Panicf("ptx: %s of a register of class %c, want %c", what, v.class, c)
		}
	}
}

// Pointer adds a parameter: the address of an array, a multiple of 16.
func (k *Kernel) Pointer() Value {
	v := k.register(address)
	k.parameters = append(k.parameters, v)
	return v
}

// Shared gives the kernel so many bytes of shared memory, and returns where they begin: a multiple
// of 128.
func (k *Kernel) Shared(bytes int) Value {
	k.shared = bytes
	return k.op("mov.u32 memory", word)
}

// Int is an int32 constant.
func (k *Kernel) Int(v int) Value { return Value{class: constant, bits: uint32(int32(v))} }

// Bits is a constant of 32 bits.
func (k *Kernel) Bits(v uint32) Value { return Value{class: constant, bits: v} }

// Float is a float32 constant.
func (k *Kernel) Float(v float32) Value { return Value{class: constant, bits: math.Float32bits(v)} }

// Lane is the number of the lane.
func (k *Kernel) Lane() Value { return k.op("mov.u32 %laneid", word) }

// Program is the index of the program along axis 0 or 1 of the grid.
func (k *Kernel) Program(axis int) Value {
	return k.op([]string{"mov.u32 %ctaid.x", "mov.u32 %ctaid.y"}[axis], word)
}

// Variable is a register of its own, which [Kernel.Set] changes.
func (k *Kernel) Variable(v Value) Value {
	c := v.class
	if c == constant {
		c = word
	}
	to := k.register(c)
	k.Set(to, v)
	return to
}

// Set gives a variable another value.
func (k *Kernel) Set(to, v Value) {
	name := map[class]string{word: "mov.b32", address: "mov.b64", predicate: "mov.pred"}[to.class]
	want(name, to.class, v)
	k.emit(instruction{op: name, to: []Value{to}, from: []Value{v}})
}

// Label is a place to branch to.
type Label string

// NewLabel makes a label, which [Kernel.Here] puts somewhere.
func (k *Kernel) NewLabel() Label {
	k.labels++
	if k.labels > 26 {
		return Label("L" + strconv.Itoa(k.labels))
	}
	return Label("L" + string(rune('a'+k.labels-1)))
}

// Here is where a label's branches go.
func (k *Kernel) Here(l Label) { k.emit(instruction{op: "label", label: string(l)}) }

// Branch goes to a label where the condition, which has to be the same in all lanes, holds.
func (k *Kernel) Branch(l Label, condition Value) {
	want("branch", predicate, condition)
	k.emit(instruction{op: "bra.uni", label: string(l), guard: &condition})
}

// Jump goes to a label.
func (k *Kernel) Jump(l Label) { k.emit(instruction{op: "bra.uni", label: string(l)}) }
