// Package ttir writes kernels in Triton's intermediate language: the MLIR dialects tt, arith, math
// and scf, as the text that XLA's CUDA compiler takes in a custom call ([Target]). It knows no
// attention. Values are blocks of numbers, and operations broadcast them as arrays do
// elsewhere.
//
// A kernel is a list of operations, so [Kernel.Run] can execute it on the host: slowly, for tests
// on machines without a GPU. Only operations that Triton has had for years are here.
//
// Functions panic where shapes or types do not fit, as functions that build graphs do: a kernel is
// part of a graph.
package ttir

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/support/exceptions"
)

// Target is what a custom call of a kernel is called in a program.
const Target = "__gpu$xla.gpu.triton"

// Elem is the type of a value's elements, in MLIR's words.
type Elem string

const (
	F32  Elem = "f32"
	F16  Elem = "f16"
	BF16 Elem = "bf16"
	I32  Elem = "i32" // also unsigned: operations say what they take it for
	I16  Elem = "i16"
	I8   Elem = "i8"
	I1   Elem = "i1"
)

// pointerTo is the type of pointers to elements of another type.
func pointerTo(e Elem) Elem { return "!tt.ptr<" + e + ">" }

func (e Elem) pointee() Elem {
	return Elem(strings.TrimSuffix(strings.TrimPrefix(string(e), "!tt.ptr<"), ">"))
}

// Value is the result of an operation: a scalar, or a block whose dimensions are powers of two.
type Value struct {
	k     *Kernel
	id    int
	Shape []int // nil: a scalar
	Elem  Elem
}

// Kernel is the kernel that the value belongs to.
func (v Value) Kernel() *Kernel { return v.k }

// Type is the value's type in MLIR's words.
func (v Value) Type() string { return typeOf(v.Shape, v.Elem) }

func typeOf(shape []int, e Elem) string {
	if shape == nil {
		return string(e)
	}
	var b strings.Builder
	b.WriteString("tensor<")
	for _, n := range shape {
		fmt.Fprintf(&b, "%dx", n)
	}
	return b.String() + string(e) + ">"
}

// op is one operation.
type op struct {
	name     string
	operands []Value
	results  []Value
	ints     []int // attributes, by operation
	float    float32
	combine  string // of a reduction
	body     *block // of a loop
}

// block is a list of operations with parameters: a kernel's, or a loop's.
type block struct {
	parameters []Value
	ops        []*op
	results    []Value
}

// Kernel is a kernel under construction. Its parameters are pointers, first to what it reads, then
// to what it writes. Make one with [New]; it is not safe for concurrent use.
type Kernel struct {
	Name string
	body *block // of the kernel itself
	at   *block // where operations go now
	next int
}

// New begins a kernel. The name has to be a plain identifier.
func New(name string) *Kernel {
	b := &block{}
	return &Kernel{Name: name, body: b, at: b}
}

func (k *Kernel) value(shape []int, e Elem) Value {
	k.next++
	return Value{k, k.next - 1, slices.Clone(shape), e}
}

// Pointer adds a parameter: a pointer to an array of elements, whose address is a multiple of 16.
func (k *Kernel) Pointer(e Elem) Value {
	v := k.value(nil, pointerTo(e))
	k.body.parameters = append(k.body.parameters, v)
	return v
}

func (k *Kernel) add(o *op, shape []int, e Elem) Value {
	v := k.value(shape, e)
	o.results = []Value{v}
	k.at.ops = append(k.at.ops, o)
	return v
}

// ProgramID is the index of the program along axis 0, 1 or 2 of the grid.
func (k *Kernel) ProgramID(axis int) Value {
	return k.add(&op{name: "tt.get_program_id", ints: []int{axis}}, nil, I32)
}

// Int is an int32 constant.
func (k *Kernel) Int(v int) Value {
	return k.add(&op{name: "arith.constant", ints: []int{v}}, nil, I32)
}

// Float is a float32 constant.
func (k *Kernel) Float(v float32) Value {
	return k.add(&op{name: "arith.constant", float: v}, nil, F32)
}

// Range is 0..n-1 along one axis of rank axes, the others of size 1.
func (k *Kernel) Range(n, axis, rank int) Value {
	if n == 1 {
		return k.Fill(k.Int(0), ones(rank)...)
	}
	v := k.add(&op{name: "tt.make_range", ints: []int{n}}, []int{n}, I32)
	for i := range rank {
		if i != axis {
			v = v.Expand(i)
		}
	}
	return v
}

func ones(rank int) []int {
	shape := make([]int, rank)
	for i := range shape {
		shape[i] = 1
	}
	return shape
}

// Fill repeats a scalar.
func (k *Kernel) Fill(v Value, shape ...int) Value {
	return k.add(&op{name: "tt.splat", operands: []Value{v}}, shape, v.Elem)
}

// Expand inserts an axis of size 1.
func (v Value) Expand(axis int) Value {
	return v.k.add(&op{name: "tt.expand_dims", operands: []Value{v}, ints: []int{axis}}, slices.Insert(slices.Clone(v.Shape), axis, 1), v.Elem)
}

// Reshape keeps the order of the elements.
func (v Value) Reshape(shape ...int) Value {
	if slices.Equal(shape, v.Shape) {
		return v
	}
	if size(shape) != size(v.Shape) {
		exceptions.Panicf("ttir.Reshape: %v of %v", shape, v.Shape)
	}
	return v.k.add(&op{name: "tt.reshape", operands: []Value{v}}, shape, v.Elem)
}

// Transpose orders the axes anew: axis i of the result is axis order[i] of v.
func (v Value) Transpose(order ...int) Value {
	shape := make([]int, len(order))
	for i, a := range order {
		shape[i] = v.Shape[a]
	}
	return v.k.add(&op{name: "tt.trans", operands: []Value{v}, ints: order}, shape, v.Elem)
}

// Split cuts the last axis, of size 2, into its two entries.
func (v Value) Split() (first, second Value) {
	shape := slices.Clone(v.Shape[:len(v.Shape)-1])
	first, second = v.k.value(shape, v.Elem), v.k.value(shape, v.Elem)
	v.k.at.ops = append(v.k.at.ops, &op{name: "tt.split", operands: []Value{v}, results: []Value{first, second}})
	return first, second
}

// Columns cuts the last axis, whose size is a power of two, into its entries.
func (v Value) Columns() []Value {
	last := len(v.Shape) - 1
	n := v.Shape[last]
	if n == 1 {
		return []Value{v.Reshape(v.Shape[:last]...)}
	}
	even, odd := v.Reshape(append(slices.Clone(v.Shape[:last]), n/2, 2)...).Split()
	out := make([]Value, n)
	for i, x := range even.Columns() {
		out[2*i] = x
	}
	for i, x := range odd.Columns() {
		out[2*i+1] = x
	}
	return out
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// to broadcasts v to a shape.
func (v Value) to(shape []int) Value {
	switch {
	case slices.Equal(v.Shape, shape) && (v.Shape == nil) == (shape == nil):
		return v
	case v.Shape == nil:
		return v.k.Fill(v, shape...)
	}
	return v.k.add(&op{name: "tt.broadcast", operands: []Value{v}}, shape, v.Elem)
}

// For runs body for i = from, from+step, … while i < to, with values that it carries from iteration
// to iteration. With more than one stage, what an iteration loads is fetched while earlier ones
// compute, up to stages-1 iterations before (Triton's software pipeline, by way of shared memory).
func (k *Kernel) For(from, to Value, step, stages int, carried []Value, body func(i Value, carried []Value) []Value) []Value {
	by := k.Int(step)
	inner, outer := &block{}, k.at
	inner.parameters = []Value{k.value(nil, I32)}
	for _, v := range carried {
		inner.parameters = append(inner.parameters, k.value(v.Shape, v.Elem))
	}
	k.at = inner
	inner.results = body(inner.parameters[0], inner.parameters[1:])
	k.at = outer
	loop := &op{name: "scf.for", operands: append([]Value{from, to, by}, carried...), ints: []int{stages}, body: inner}
	for i, v := range carried {
		if r := inner.results[i]; r.Type() != v.Type() {
			exceptions.Panicf("ttir.For: value %d comes in as %s and goes out as %s", i, v.Type(), r.Type())
		}
		loop.results = append(loop.results, k.value(v.Shape, v.Elem))
	}
	k.at.ops = append(k.at.ops, loop)
	return loop.results
}
