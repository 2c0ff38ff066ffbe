package gx

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/gomlx/core/graph"
)

// closureOfCurrent makes the next graph.NewClosure of g a closure of g's current function, and returns what undoes that.
//
// GoMLX v0.28.16 (core/graph/function.go, NewClosureWithSharding) makes every closure a closure of the main function, and go-xla v0.4.13
// (compute/xla/function.go, While) refuses a closure that is not one of the current function: a While inside of a While cannot be built.
// So the builder's main function is exchanged for as long as the closure is being made. Both fields are unexported; where they are not
// found (another backend, a later GoMLX), nothing is exchanged, and TestNestedLoops tells.
func closureOfCurrent(g *graph.Graph) (undo func()) {
	undo = func() {}
	current := reflect.ValueOf(g.CurrentFunc())
	if current.IsNil() || g.CurrentFunc().IsMain() {
		return undo
	}
	function := pointee(current.Elem().FieldByName("backendFunc"))
	main := pointee(reflect.ValueOf(g).Elem().FieldByName("builder"))
	if !function.IsValid() || !main.IsValid() || main.Kind() != reflect.Struct {
		return undo
	}
	field := main.FieldByName("mainFn")
	if !field.IsValid() || !field.CanAddr() || field.Kind() != reflect.Pointer || field.Type().Elem() != function.Type() {
		return undo
	}
	// NewAt drops the mark that forbids setting unexported fields.
	slot := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	old := reflect.ValueOf(slot.Interface())
	slot.Set(function.Addr().Convert(field.Type()))
	return func() { slot.Set(old) }
}

// pointee follows interfaces and pointers to the value behind them; the zero Value where there is none.
func pointee(v reflect.Value) reflect.Value {
	for v.IsValid() && (v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer) {
		v = v.Elem()
	}
	if v.IsValid() && v.CanAddr() {
		return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	return v
}
