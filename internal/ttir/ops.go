package ttir

import (
	"slices"

	"github.com/gomlx/gomlx/support/exceptions"
)

// join is the shape that values broadcast to.
func join(what string, values ...Value) []int {
	var shape []int
	for _, v := range values {
		switch {
		case v.Shape == nil:
		case shape == nil:
			shape = slices.Clone(v.Shape)
		case len(shape) != len(v.Shape):
			exceptions.Panicf("ttir: %s of %s and %s: different ranks", what, values[0].Type(), v.Type())
		default:
			for i, n := range v.Shape {
				if n != shape[i] && n != 1 && shape[i] != 1 {
					exceptions.Panicf("ttir: %s of %s and %s: axis %d differs", what, values[0].Type(), v.Type(), i)
				}
				shape[i] = max(shape[i], n)
			}
		}
	}
	return shape
}

// elementwise adds an operation on values that it broadcasts.
func elementwise(name string, result Elem, values ...Value) Value {
	shape := join(name, values...)
	all := make([]Value, len(values))
	for i, v := range values {
		all[i] = v.to(shape)
	}
	return values[0].k.add(&op{name: name, operands: all}, shape, result)
}

// arithmetic picks the operation for the type of a.
func arithmetic(name string, a, b Value) Value {
	if a.Elem != b.Elem {
		exceptions.Panicf("ttir: %s of %s and %s", name, a.Type(), b.Type())
	}
	suffix := "i"
	if a.Elem == F32 {
		suffix = "f"
	}
	return elementwise("arith."+name+suffix, a.Elem, a, b)
}

// Add is a + b, of float32 or int32.
func Add(a, b Value) Value { return arithmetic("add", a, b) }

// Sub is a - b, of float32 or int32.
func Sub(a, b Value) Value { return arithmetic("sub", a, b) }

// Mul is a·b, of float32 or int32.
func Mul(a, b Value) Value { return arithmetic("mul", a, b) }

// Div is a/b, of float32. A GPU's is approximate: off by two units in the last place.
func Div(a, b Value) Value { return elementwise("arith.divf", F32, a, b) }

// Quotient is a/b of float32, rounded to nearest.
func Quotient(a, b Value) Value { return elementwise("tt.precise_divf", F32, a, b) }

// MulAdd is a·b + c of float32, rounded once.
func MulAdd(a, b, c Value) Value { return elementwise("math.fma", F32, a, b, c) }

// Min is the smaller int32.
func Min(a, b Value) Value { return elementwise("arith.minsi", I32, a, b) }

// Max is the larger float32.
func Max(a, b Value) Value { return elementwise("arith.maxnumf", F32, a, b) }

// BitAnd is a & b, of int32 or booleans.
func BitAnd(a, b Value) Value { return elementwise("arith.andi", a.Elem, a, b) }

// predicates are comparisons of int32, by their numbers in MLIR.
var predicates = map[int]string{0: "eq", 2: "slt", 3: "sle"}

func compare(predicate int, a, b Value) Value {
	v := elementwise("arith.cmpi", I1, a, b)
	last := v.k.at.ops[len(v.k.at.ops)-1]
	last.ints = []int{predicate}
	return v
}

// Equal is a == b, of int32.
func Equal(a, b Value) Value { return compare(0, a, b) }

// Less is a < b, of int32.
func Less(a, b Value) Value { return compare(2, a, b) }

// LessOrEqual is a <= b, of int32.
func LessOrEqual(a, b Value) Value { return compare(3, a, b) }

// LessFloat is a < b, of float32.
func LessFloat(a, b Value) Value { return elementwise("arith.cmpf", I1, a, b) }

// Select is a where the condition holds, else b.
func Select(condition, a, b Value) Value {
	shape := join("select", condition, a, b)
	return a.k.add(&op{name: "arith.select", operands: []Value{condition.to(shape), a.to(shape), b.to(shape)}}, shape, a.Elem)
}

// AddInt is v + n, of int32.
func (v Value) AddInt(n int) Value { return Add(v, v.k.Int(n)) }

// MulInt is v·n, of int32.
func (v Value) MulInt(n int) Value {
	if n == 1 {
		return v
	}
	return Mul(v, v.k.Int(n))
}

// DivInt is v/n of int32, rounded towards 0.
func (v Value) DivInt(n int) Value {
	if n == 1 {
		return v
	}
	return elementwise("arith.divsi", I32, v, v.k.Int(n))
}

// RemInt is what DivInt leaves over.
func (v Value) RemInt(n int) Value { return elementwise("arith.remsi", I32, v, v.k.Int(n)) }

// AndInt is v & n, of int32.
func (v Value) AndInt(n int) Value { return BitAnd(v, v.k.Int(n)) }

// ShiftRight is v >> n, of int32 taken as unsigned.
func (v Value) ShiftRight(n int) Value { return elementwise("arith.shrui", I32, v, v.k.Int(n)) }

// ShiftLeft is v << n, of int32.
func (v Value) ShiftLeft(n int) Value { return elementwise("arith.shli", I32, v, v.k.Int(n)) }

// ShiftLeftBy is a << b, of int32.
func ShiftLeftBy(a, b Value) Value { return elementwise("arith.shli", I32, a, b) }

// AddFloat is v + x, of float32.
func (v Value) AddFloat(x float32) Value { return Add(v, v.k.Float(x)) }

// MulFloat is v·x, of float32.
func (v Value) MulFloat(x float32) Value { return Mul(v, v.k.Float(x)) }

// AtMost is the smaller of v and x, of float32.
func (v Value) AtMost(x float32) Value { return elementwise("arith.minnumf", F32, v, v.k.Float(x)) }

// AtLeast is the larger of v and x, of float32.
func (v Value) AtLeast(x float32) Value { return Max(v, v.k.Float(x)) }

// RoundSmall rounds float32 below 2^22 in magnitude to whole numbers, halves to even.
func (v Value) RoundSmall() Value {
	const shift = 3 << 22 // from here on, to 2^24, float32 has whole numbers alone
	return v.AddFloat(shift).AddFloat(-shift)
}

// Exp2 is 2^v, of float32. A GPU's is approximate: off by a few units in the last place.
func (v Value) Exp2() Value { return elementwise("math.exp2", F32, v) }

// ToFloat converts to float32. Bytes count from 0 to 255.
func (v Value) ToFloat() Value {
	switch v.Elem {
	case F32:
		return v
	case I32:
		return elementwise("arith.sitofp", F32, v)
	case I8:
		return v.Wide().ToFloat()
	}
	return elementwise("arith.extf", F32, v)
}

// Sqrt is the square root of float32, rounded to nearest.
func (v Value) Sqrt() Value { return elementwise("tt.precise_sqrt", F32, v) }

// Narrow rounds float32 to float16 or bfloat16, halves to even.
func (v Value) Narrow(e Elem) Value {
	if e == F32 {
		return v
	}
	return elementwise("arith.truncf", e, v)
}

// Wide gives bytes, or integers of 16 bits, as int32 of 0 or more.
func (v Value) Wide() Value { return elementwise("arith.extui", I32, v) }

// Byte is the low 8 bits of int32.
func (v Value) Byte() Value { return elementwise("arith.trunci", I8, v) }

// Bitcast reads the bits as those of another type of the same size.
func (v Value) Bitcast(e Elem) Value {
	return v.k.add(&op{name: "tt.bitcast", operands: []Value{v}}, v.Shape, e)
}

// Max is the largest float32 along an axis, which goes away.
func (v Value) Max(axis int) Value { return v.reduce("maxnumf", axis) }

// Min is the smallest float32 along an axis, which goes away.
func (v Value) Min(axis int) Value { return v.reduce("minnumf", axis) }

// Sum adds float32 along an axis, which goes away.
func (v Value) Sum(axis int) Value { return v.reduce("addf", axis) }

// SumInt adds int32 along an axis, which goes away.
func (v Value) SumInt(axis int) Value { return v.reduce("addi", axis) }

func (v Value) reduce(combine string, axis int) Value {
	shape := slices.Delete(slices.Clone(v.Shape), axis, axis+1)
	if len(shape) == 0 {
		shape = nil
	}
	if v.Shape[axis] == 1 && shape != nil {
		return v.Reshape(shape...)
	}
	return v.k.add(&op{name: "tt.reduce", operands: []Value{v}, ints: []int{axis}, combine: combine}, shape, v.Elem)
}

// at is pointer + offset, in elements.
func at(pointer, offset Value) Value {
	return pointer.k.add(&op{name: "tt.addptr", operands: []Value{pointer.to(offset.Shape), offset}}, offset.Shape, pointer.Elem)
}

// Load reads elements at pointer + offset (int32).
func Load(pointer, offset Value) Value {
	p := at(pointer, offset)
	return p.k.add(&op{name: "tt.load", operands: []Value{p}}, p.Shape, p.Elem.pointee())
}

// Store writes value to pointer + offset (int32).
func Store(pointer, offset, value Value) {
	if value.Elem != pointer.Elem.pointee() {
		exceptions.Panicf("ttir.Store: %s into %s", value.Type(), pointer.Type())
	}
	p := at(pointer, offset)
	p.k.at.ops = append(p.k.at.ops, &op{name: "tt.store", operands: []Value{p, value.to(offset.Shape)}})
}
