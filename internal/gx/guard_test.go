package gx_test

import (
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// The modules of go.mod have all that is used, on every backend. Package guardtest builds with
// others.
func TestCheck(t *testing.T) {
	for range 2 {
		if err := gx.Check(testbackend.XLA(t)); err != nil {
			t.Errorf("XLA: %v", err)
		}
	}
	if err := gx.Check(testbackend.Go(t)); err != nil {
		t.Errorf("the pure-Go backend: %v", err)
	}
}

// A finalized backend is an error, and says nothing of others of its kind.
func TestCheckOfFinalized(t *testing.T) {
	testbackend.XLA(t) // skips where there is none
	backend, err := device.Open(device.XLACPU)
	if err != nil {
		t.Fatal(err)
	}
	backend.Finalize()
	gx.ForgetChecks()
	if err := gx.Check(backend); err == nil {
		t.Error("Check gave no error for a finalized backend")
	}
	if err := gx.Check(testbackend.XLA(t)); err != nil {
		t.Error(err)
	}
}

// What only XLA has is refused elsewhere, and Reuse is no request that another backend could
// refuse.
func TestOtherBackend(t *testing.T) {
	call, err := NewExec(testbackend.Go(t), func(x *Node) *Node {
		return gx.CustomCall("LayoutConstraint", "", []*Node{x}, x.Shape())[0]
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Call([]float32{1}); err == nil || !strings.Contains(err.Error(), "not go-xla's") {
		t.Errorf("CustomCall: %v, want an error that says why", err)
	}
	var built *Graph
	reuse, err := NewExec(testbackend.Go(t), func(in []*Node) []*Node {
		built = in[0].Graph()
		gx.Reuse(in)
		return []*Node{gx.AddScalar(in[0], 1)}
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := reuse.Call([]float32{1})
	if err != nil {
		t.Fatal(err)
	}
	if got := out[0].Value().([]float32)[0]; got != 2 {
		t.Errorf("1 + 1 = %v", got)
	}
	if c, err := gx.CompiledMemory(built); err == nil {
		t.Errorf("CompiledMemory = %+v, want an error", c)
	}
}
