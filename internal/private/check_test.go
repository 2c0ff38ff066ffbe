package private

import (
	"os"
	"reflect"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/gomlx/core/graph"
)

// roots are the types that others lead to.
func roots() Types {
	pureGo, err := gobackend.New("")
	if err != nil {
		panic(err)
	}
	return Types{
		"graph.Graph":       reflect.TypeFor[graph.Graph](),
		"graph.Function":    reflect.TypeFor[graph.Function](),
		"graph.Node":        reflect.TypeFor[graph.Node](),
		"gobackend.Backend": reflect.TypeOf(pureGo),
		"gobackend.Builder": reflect.TypeOf(pureGo.Builder("types")),
		"xla.Backend":       reflect.TypeFor[*xla.Backend](),
		"xla.Builder":       reflect.TypeFor[*xla.Builder](),
		"xla.Node":          reflect.TypeFor[*xla.Node](),
		"xla.Executable":    reflect.TypeFor[*xla.Executable](),
	}
}

// Every field is found in the modules of go.mod, and each of them is missed where it is not there
// or has become something else.
func TestEveryField(t *testing.T) {
	if err := Check(roots()); err != nil {
		t.Fatal(err)
	}
	for _, f := range Fields() {
		reached := false
		without := func(typ reflect.Type, name string) (reflect.StructField, bool) {
			field, ok := typ.FieldByName(name)
			if name == f.Name && typ.String() == f.Owner {
				reached = true
				return reflect.StructField{}, false
			}
			return field, ok
		}
		wantLine(t, f, check(roots(), without))
		if !reached {
			t.Errorf("%s was not looked for", f)
		}
		other := func(typ reflect.Type, name string) (reflect.StructField, bool) {
			field, ok := typ.FieldByName(name)
			if name == f.Name && typ.String() == f.Owner {
				field.Type = reflect.TypeFor[complex64]()
			}
			return field, ok
		}
		wantLine(t, f, check(roots(), other))
		if f.For == "" || f.Module != GoMLX && f.Module != GoXLA && f.Module != Compute {
			t.Errorf("%s: the table says neither what for nor of which module", f)
		}
	}
}

// wantLine checks the one line that a user gets.
func wantLine(t *testing.T, f *Field, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", f)
		return
	}
	for _, want := range []string{f.String() + ", for " + f.For, GoMLX + " " + TestedGoMLX, GoXLA + " " + TestedGoXLA,
		"this program has", "go get " + GoMLX + "@" + TestedGoMLX + " " + GoXLA + "@" + TestedGoXLA} {
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, want one line with %q", f, err, want)
		}
	}
}

// What is known of a struct decides what is looked for.
func TestCheckOfOtherBackends(t *testing.T) {
	if err := Check(Types{"graph.Graph": reflect.TypeFor[graph.Graph]()}); err != nil {
		t.Errorf("without go-xla: %v", err)
	}
	type empty struct{}
	if err := Check(Types{"xla.Builder": reflect.TypeFor[*empty]()}); err == nil || !strings.Contains(err.Error(), "xla.Builder.mainFn") {
		t.Errorf("a builder of another kind: %v", err)
	}
}

func TestAccess(t *testing.T) {
	type node struct{ outputOps int }
	type owner struct {
		scalars map[int]int
		node    *node
	}
	o := &owner{scalars: map[int]int{1: 2}}
	GraphScalars.Of(o).Set(reflect.ValueOf(map[int]int{3: 4}))
	if o.scalars[3] != 4 {
		t.Errorf("the field holds %v", o.scalars)
	}
	if _, ok := NodeOutputs.Find(&node{}); ok {
		t.Error("a field of another type was found")
	}
	if _, ok := NodeOutputs.Find(o.node); ok {
		t.Error("a field of nil was found")
	}
	defer func() {
		if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), "graph.Graph.tensorConstants") {
			t.Errorf("Of panics with %v, want an error that names the field", err)
		}
	}()
	GraphTensors.Of(o)
}

// The tested versions are those that go.mod asks for.
func TestVersions(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for module, version := range map[string]string{GoMLX: TestedGoMLX, GoXLA: TestedGoXLA, Compute: TestedCompute} {
		if !strings.Contains(string(mod), "\t"+module+" "+version+"\n") {
			t.Errorf("go.mod does not ask for %s %s", module, version)
		}
	}
	info := &debug.BuildInfo{Main: debug.Module{Path: "main"}, Deps: []*debug.Module{
		{Path: GoMLX, Version: "v0.29.0"},
		{Path: GoXLA, Version: "v0.4.13", Replace: &debug.Module{Path: "../go-xla"}},
	}}
	for module, want := range map[string]string{GoMLX: "v0.29.0", GoXLA: "v0.4.13 replaced by ../go-xla", "x": "an unknown version"} {
		if got := versionIn(info, module); got != want {
			t.Errorf("version of %s: %q, want %q", module, got, want)
		}
	}
}
