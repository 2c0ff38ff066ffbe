package gx

import (
	"bytes"
	"reflect"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/stablehlo"
	xlashapes "github.com/gomlx/go-xla/types/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/private"
)

// Check reports whether all that this package uses of the inside of GoMLX and go-xla is as it
// expects, in one line that names versions. It looks once per kind of backend in a process, and
// compiles nothing. Another backend than go-xla's needs GoMLX's part only, and the pure-Go one has
// to execute its operations one after the other, see [loopsEnd].
//
// The functions of this package call it for the graphs that need it and panic with its line.
func Check(backend compute.Backend) error {
	if i := inspected(backend); i.err != nil || !i.pureGo {
		return i.err
	}
	return loopsEnd(backend)
}

// onXLA reports whether g is a graph of go-xla. It panics with the error of [Check].
func onXLA(g *graph.Graph) bool {
	i := inspected(g.Backend())
	if i.err != nil {
		exceptions.Panicf("%v", i.err)
	}
	return i.xla
}

// inspection is what Check found for a kind of backend.
type inspection struct {
	xla, pureGo bool
	err         error
}

var inspections sync.Map // the backend's reflect.Type → inspection

func inspected(backend compute.Backend) inspection {
	key := reflect.TypeOf(backend)
	if i, ok := inspections.Load(key); ok {
		return i.(inspection)
	}
	if backend.IsFinalized() {
		return inspection{err: errFinalized} // of this backend, not of its kind
	}
	i := inspect(backend)
	inspections.Store(key, i)
	return i
}

// Packages of go-xla's backend and of the pure-Go one.
const (
	goXLA     = private.GoXLA + "/compute/xla"
	goBackend = private.Compute + "/internal/gobackend"
)

// inspect begins a program, which is never compiled, to learn the types that it consists of.
func inspect(backend compute.Backend) (i inspection) {
	i.xla = backend.Name() == "xla" || packageOf(backend) == goXLA
	types := private.Types{
		"graph.Graph":    reflect.TypeFor[graph.Graph](),
		"graph.Function": reflect.TypeFor[graph.Function](),
		"graph.Node":     reflect.TypeFor[graph.Node](),
	}
	if i.pureGo = packageOf(backend) == goBackend; i.pureGo {
		types["gobackend.Backend"] = reflect.TypeOf(backend)
		types["gobackend.Builder"] = reflect.TypeOf(backend.Builder("kvqbook_check"))
	}
	if !i.xla {
		if i.err = private.Check(types); i.err == nil && i.pureGo {
			i.err = optimizes(backend.Builder("kvqbook_check"))
		}
		return i
	}
	if packageOf(backend) == goXLA { // not one that only hands calls on to it
		types["xla.Backend"] = reflect.TypeOf(backend)
	}
	builder := backend.Builder("kvqbook_check")
	types["xla.Builder"] = reflect.TypeOf(builder)
	x, err := builder.Main().Parameter("x", shapes.Make(dtypes.Float32, 1), nil)
	if err != nil {
		i.err = err
		return i
	}
	types["xla.Node"] = reflect.TypeOf(x)
	if i.err = private.Check(types); i.err == nil {
		i.err = behaves(builder)
	}
	return i
}

// packageOf is the path of the package that x's struct belongs to.
func packageOf(x any) string {
	t := reflect.TypeOf(x)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath()
}

// behaves reports whether go-xla does with its fields what this package relies on.
func behaves(builder compute.Builder) error {
	if err := closuresFollowMain(builder); err != nil {
		return err
	}
	return attributesAreWritten()
}

// closuresFollowMain checks what closureOfCurrent relies on: the field mainFn is what Main returns,
// whose closures GoMLX's are.
func closuresFollowMain(builder compute.Builder) error {
	other, err := builder.NewFunction("kvqbook_other")
	if err != nil {
		return err
	}
	field := private.BuilderMain.Of(builder)
	old := reflect.ValueOf(field.Interface())
	defer field.Set(old)
	field.Set(reflect.ValueOf(other))
	if builder.Main() != other {
		return private.Error("xla.Builder.Main does not return its field mainFn")
	}
	return nil
}

// attributesAreWritten checks what Reuse and keepCall rely on: attributes that go-xla does not know
// reach the text of the program.
func attributesAreWritten() error {
	builder := stablehlo.New("kvqbook_check")
	main := builder.Main()
	x, err := main.NamedInput("x", xlashapes.Make(dtypes.Float32, 1))
	if err != nil {
		return err
	}
	alias(x, 0)
	sum, err := stablehlo.Add(x, x)
	if err != nil {
		return err
	}
	keep(main.Statements[len(main.Statements)-1])
	if err := main.Return(sum); err != nil {
		return err
	}
	text, err := builder.Build()
	if err != nil {
		return err
	}
	// In whatever way the two parts are set apart.
	squeezed := bytes.ReplaceAll(text, []byte(" "), nil)
	for _, want := range []string{aliasing + "=0:i32", frontend + "=" + strings.ReplaceAll(notInlined{}.ToStableHLO(), " ", "")} {
		if !bytes.Contains(squeezed, []byte(want)) {
			return private.Error("the attribute %s is not written", want)
		}
	}
	return nil
}

var (
	errNoXLA     = errors.New("the backend is not go-xla's") // for what no other backend has
	errFinalized = errors.New("the backend is finalized")
)
