// Package testbackend chooses the backends that tests run on. Only tests import it.
package testbackend

import (
	"os"
	"sync"
	"testing"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/device"
)

// RequireVariable, set to 1, turns the skip of a missing XLA plugin into a failure. ./scripts/test
// sets it, so that a green run cannot mean that every test was skipped.
const RequireVariable = "KVQ_REQUIRE_XLA"

// XLA returns XLA on the CPU, one backend shared by the whole test process. Where the plugin is not
// found or does not load, the test is skipped with that reason, or fails if KVQ_REQUIRE_XLA=1.
//
// It is opened as a program opens it, so $KVQ_COMPILED names a folder that keeps what XLA compiled.
func XLA(t testing.TB) compute.Backend {
	t.Helper()
	backend, err := xla()
	if err == nil {
		return backend
	}
	if os.Getenv(RequireVariable) == "1" {
		t.Fatalf("no XLA backend, and %s=1 requires one: %v", RequireVariable, err)
	}
	t.Skipf("no XLA backend: %v", err)
	return nil
}

// Go returns GoMLX's pure-Go backend, one shared by the whole test process: it runs anywhere, and
// what it runs is not compiled.
func Go(t testing.TB) compute.Backend {
	t.Helper()
	backend, err := pureGo()
	if err != nil {
		t.Fatalf("the pure-Go backend does not start: %v", err)
	}
	return backend
}

// CUDA opens XLA on an NVIDIA GPU for one test. Where there is none, or it does not open, the test
// is skipped with that reason.
func CUDA(t testing.TB) compute.Backend {
	t.Helper()
	if !device.HasNVIDIA() {
		t.Skip("no NVIDIA GPU")
	}
	backend, err := device.Open(device.XLACUDA)
	if err != nil {
		t.Skipf("CUDA does not open: %v", err)
	}
	t.Cleanup(backend.Finalize)
	return backend
}

var (
	xla    = sync.OnceValues(func() (compute.Backend, error) { return device.Open(device.XLACPU) })
	pureGo = sync.OnceValues(func() (compute.Backend, error) { return device.Open(device.PureGo) })
)
