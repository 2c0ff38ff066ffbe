package private

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/gomlx/support/exceptions"
)

// Of returns the field of the struct that owner is, points to or holds. It can be read, and set
// where owner leads through a pointer. It panics with the line of [Error] where the field is not
// there.
func (f *Field) Of(owner any) reflect.Value {
	v, ok := f.Find(owner)
	if !ok {
		exceptions.Panicf("%v", f.missing())
	}
	return v
}

// Find is Of that reports whether the field is there; it is not where owner is nil.
func (f *Field) Find(owner any) (reflect.Value, bool) {
	s, ok := owner.(reflect.Value)
	if !ok {
		s = reflect.ValueOf(owner)
	}
	for s.Kind() == reflect.Interface || s.Kind() == reflect.Pointer {
		s = s.Elem()
	}
	if s.Kind() != reflect.Struct {
		return reflect.Value{}, false
	}
	v := s.FieldByName(f.Name)
	if !v.IsValid() || !f.fits(v.Type()) {
		return reflect.Value{}, false
	}
	if v.CanAddr() { // NewAt drops the mark that forbids reading and setting unexported fields
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	return v, true
}
