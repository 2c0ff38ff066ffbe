package private

import (
	"fmt"
	"reflect"
	"runtime/debug"
	"strings"
)

// Versions that everything is tested with, as go.mod has them.
const (
	TestedGoMLX   = "v0.28.16"
	TestedGoXLA   = "v0.4.13"
	TestedCompute = "v0.1.14" // the version that GoMLX's go.mod asks for
)

// Types are structs by the names that the table gives their owners. Those that fields lead to need
// not be given.
type Types map[string]reflect.Type

// Check looks for every field whose owner is known, and returns the line of [Error] for the first
// that is not there or is of another type.
func Check(roots Types) error { return check(roots, reflect.Type.FieldByName) }

// check is Check with another way to find a field.
func check(roots Types, find func(t reflect.Type, name string) (reflect.StructField, bool)) error {
	known := Types{}
	for name, t := range roots {
		known[name] = structOf(t)
	}
	for _, f := range fields {
		owner := known[f.Owner]
		if owner == nil {
			continue
		}
		if owner.Kind() != reflect.Struct {
			return f.missing()
		}
		field, ok := find(owner, f.Name)
		if !ok || !f.fits(field.Type) {
			return f.missing()
		}
		if f.Leads != "" {
			known[f.Leads] = structOf(field.Type)
		}
	}
	return nil
}

// structOf follows pointers and slices to the type behind them.
func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

func (f *Field) missing() error {
	if f.Module == Compute {
		return Error("field %s, for %s, is not there in %s %s (tested: %s)", f, f.For, Compute, found(Compute), TestedCompute)
	}
	return Error("field %s, for %s, is not there", f, f.For)
}

// Error is one line: the tested versions, those of this program, what is not as expected, and what
// to do.
func Error(format string, args ...any) error {
	return fmt.Errorf("kvqbook needs %s %s and %s %s (tested); this program has %s and %s: %s; pin the tested versions with: go get %s@%s %s@%s",
		GoMLX, TestedGoMLX, GoXLA, TestedGoXLA, found(GoMLX), found(GoXLA), fmt.Sprintf(format, args...),
		GoMLX, TestedGoMLX, GoXLA, TestedGoXLA)
}

// found is a module's version in this program, by its build information.
func found(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "an unknown version"
	}
	return versionIn(info, module)
}

func versionIn(info *debug.BuildInfo, module string) string {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path != module {
			continue
		}
		if r := m.Replace; r != nil {
			return strings.TrimSpace(m.Version + " replaced by " + strings.TrimSpace(r.Path+" "+r.Version))
		}
		return m.Version
	}
	return "an unknown version"
}
