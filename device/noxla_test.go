//go:build !linux || !cgo

package device

import (
	"errors"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// A program without XLA says so, in one line with what to do, for every name of a device of XLA.
func TestNoXLA(t *testing.T) {
	t.Setenv(EnvDefault, "")
	for _, name := range []string{"", "cpu", "gpu", XLACPU, XLACUDA, "xla:/some/plugin.so"} {
		_, err := Open(name)
		if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "no XLA") || !strings.Contains(err.Error(), EnvDefault+"=go") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want a line that says what is missing", name, err)
		}
	}
	if _, err := Open("tpu"); err == nil || strings.Contains(err.Error(), "no XLA") {
		t.Errorf("a name that is none: %v", err)
	}
	if err := KeepCompiled(nil, ""); !errors.Is(err, ErrInput) {
		t.Errorf("KeepCompiled: %v", err)
	}
	if NotKept() != nil {
		t.Error("nothing is kept, and nothing could be")
	}
	infos := List()
	if len(infos) != 3 || infos[0].Err == nil || infos[1].Err == nil || infos[2].Err != nil || infos[2].Platform != PureGo {
		t.Errorf("%+v, want XLA's two that do not open, and the pure-Go backend", infos)
	}
	if got := Warning(infos); got != errNoXLA.Error() {
		t.Errorf("warning %q, want what is missing", got)
	}
}

// The pure-Go backend runs graphs.
func TestPureGoWithoutXLA(t *testing.T) {
	t.Setenv(EnvDefault, PureGo)
	backend, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	if m := MemoryOf(backend, 0); m.Limit < m.InUse {
		t.Errorf("memory %+v", m)
	}
	if out := doubled(t, backend); out != 42 {
		t.Errorf("twice 21 is %v", out)
	}
}

func doubled(t *testing.T, backend compute.Backend) float32 {
	t.Helper()
	exec, err := graph.NewExec(backend, func(x *graph.Node) *graph.Node { return graph.MulScalar(x, 2) })
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Exec1(float32(21))
	if err != nil {
		t.Fatal(err)
	}
	return out.Value().(float32)
}
