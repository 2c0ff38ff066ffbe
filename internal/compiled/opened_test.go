package compiled_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gomlx/go-xla/compute/xla"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
)

// childVariable marks the process that opens a backend of its own: a process keeps the graphs of
// one plugin.
const childVariable = "KVQ_TEST_KEEP_CHILD"

// A backend that go-xla opened by itself keeps graphs after device.KeepCompiled.
func TestKeepCompiledOfAnotherBackend(t *testing.T) {
	path, err := asset.CPUPlugin()
	if err != nil {
		if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := os.Getenv(childVariable)
	if dir == "" {
		dir = t.TempDir()
		child := exec.Command(os.Args[0], "-test.run=^TestKeepCompiledOfAnotherBackend$", "-test.v")
		child.Env = append(os.Environ(), childVariable+"="+dir, asset.EnvCompiled+"=")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if names, err := filepath.Glob(filepath.Join(dir, "*.xla")); err != nil || len(names) == 0 {
			t.Fatalf("%s holds nothing (%v)", dir, err)
		}
		return
	}
	compiled.KeepAll(t)
	backend, err := xla.New(path)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	for range 2 { // the second time it is done already
		if err := device.KeepCompiled(backend, dir); err != nil {
			t.Fatal(err)
		}
	}
	var last float32
	for _, c := range []struct{ loaded, kept int64 }{{0, 1}, {1, 1}} {
		exec := MustNewExec(backend, func(x *Node) *Node { return ReduceAllSum(Exp(x)) })
		last = exec.MustCall1([]float32{0, 0, 0}).Value().(float32)
		exec.Finalize()
		if loaded, kept := compiled.Counts(); loaded != c.loaded || kept != c.kept || last != 3 {
			t.Errorf("%d loaded, %d kept, result %g; want %+v and 3", loaded, kept, last, c)
		}
	}
}
