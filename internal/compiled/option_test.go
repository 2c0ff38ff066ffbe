package compiled_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/compiled"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

const mode = "xla_gpu_command_buffer_scheduling_mode" // XLA for a CPU reads it too, and has no use for it

// What jax 0.11.2 appends to its options for compiler_options={mode: "CONCURRENT"}.
func TestOptionIsWhatJAXWrites(t *testing.T) {
	want := "before:6\n&" + mode + "\x12\x0c\n\nCONCURRENT"
	before := []byte("before")
	if got := (compiled.Option{Name: mode, Value: "CONCURRENT"}).In(before); string(got) != want || string(before) != "before" {
		t.Errorf("%q, want %q", got, want)
	}
}

// XLA gets the option, for the programs that it is for and for no others; the file on disk is
// another one.
func option(t *testing.T, backend compute.Backend, run func() []float32) {
	want := run() // kept until now without one
	var seen [][]byte
	set := func(value string, is bool) {
		compiled.Set(t, &compiled.Option{Name: mode, Value: value, For: func(program []byte) bool {
			seen = append(seen, bytes.Clone(program))
			return is
		}})
	}
	set("NONSENSE", false)
	if got := run(); got[0] != want[0] || len(seen) == 0 {
		t.Errorf("a program that it is not for: %v after %d questions, want %v", got, len(seen), want)
	}
	_, before := compiled.Counts()
	set("CONCURRENT", true)
	got := run()
	if _, kept := compiled.Counts(); got[0] != want[0] || kept == before {
		t.Errorf("with the option %v, %d graphs kept; want %v, and some", got, kept-before, want)
	}
	set("NONSENSE", true)
	compile := func(fn func(x *Node) *Node) error {
		exec := MustNewExec(backend, fn)
		defer exec.Finalize()
		_, err := exec.Call([]float32{1, 2})
		return err
	}
	if err := compile(func(x *Node) *Node { return Sqrt(x) }); err == nil || !strings.Contains(err.Error(), "NONSENSE") {
		t.Errorf("a value that there is not: %v, want XLA's error about it", err)
	}

	// Package device looks for these in a program.
	for _, target := range []string{ttir.Target, ptx.Target} {
		set("", false)
		seen = nil
		err := compile(func(x *Node) *Node { return gx.CustomCall(target, "", []*Node{x}, x.Shape())[0] })
		if err == nil || len(seen) != 1 || !bytes.Contains(seen[0], []byte(target)) {
			t.Errorf("%s: %v, seen %q; want an error of a CPU, and the name in the program", target, err, seen)
		}
	}
}
