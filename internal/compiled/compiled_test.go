package compiled_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/compiled"
)

// A graph is kept, loaded, computes the same, and is compiled again from a damaged file.
func TestCompiled(t *testing.T) {
	if _, err := asset.CPUPlugin(); err != nil {
		if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	t.Setenv(asset.EnvCompiled, dir)
	compiled.KeepAll(t)
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	run := func() []float32 {
		exec := MustNewExec(backend, func(x, y *Node) *Node { return Add(Dot(x, y).Product(), ReduceAllSum(Exp(x))) })
		defer exec.Finalize()
		out := exec.MustCall([][]float32{{1, 2}, {3, 4}}, [][]float32{{5, 6}, {7, 8}})[0]
		return tensors.MustCopyFlatData[float32](out)
	}
	files := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "*.xla"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	step := func(what string, wantLoaded, wantKept bool) []float32 {
		loaded, kept := compiled.Counts()
		out := run()
		nowLoaded, nowKept := compiled.Counts()
		if (nowLoaded > loaded) != wantLoaded || (nowKept > kept) != wantKept {
			t.Errorf("%s: %d loaded, %d kept; want some: %v, %v", what, nowLoaded-loaded, nowKept-kept, wantLoaded, wantKept)
		}
		return out
	}
	first := step("first", false, true)
	names := files()
	if len(names) == 0 {
		t.Fatalf("%s holds nothing", dir)
	}
	if again := step("again", true, false); !slices.Equal(first, again) {
		t.Errorf("loaded, the graph gives %v, want %v", again, first)
	}
	for _, name := range names {
		if err := os.Truncate(name, 100); err != nil {
			t.Fatal(err)
		}
	}
	if again := step("damaged", false, true); !slices.Equal(first, again) {
		t.Errorf("compiled again, the graph gives %v, want %v", again, first)
	}
	for _, name := range names {
		compiled.Put(t, name, "whole, but nothing that XLA wrote")
	}
	if again := step("not XLA's", false, true); !slices.Equal(first, again) {
		t.Errorf("compiled a third time, the graph gives %v, want %v", again, first)
	}
	if again := files(); !slices.Equal(again, names) {
		t.Errorf("the folder holds %q, want %q", again, names)
	}
	t.Run("option", func(t *testing.T) { option(t, backend, run) })
	t.Run("fusions", func(t *testing.T) { keptGraph(t, backend, dir) })
}
