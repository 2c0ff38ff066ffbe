// Package testbackend chooses the backends that tests run on. Only tests import it.
package testbackend

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/kvqbook/kvqbook/internal/asset"

	_ "github.com/gomlx/gomlx/backends/default" // registers "xla" and "go"
)

// RequireVariable, set to 1, turns the skip of a missing XLA plugin into a failure. ./scripts/test sets it, so that a
// green run cannot mean that every test was skipped.
const RequireVariable = "KVQ_REQUIRE_XLA"

// XLA returns XLA on the CPU, one backend shared by the whole test process. Where the plugin is not found or does not
// load, the test is skipped with that reason, or fails if KVQ_REQUIRE_XLA=1.
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

// Go returns GoMLX's pure-Go backend, one shared by the whole test process. It runs elementwise graphs anywhere;
// it has no dynamic slices and its dots hang inside a While, so caches and models need XLA.
func Go(t testing.TB) compute.Backend {
	t.Helper()
	backend, err := pureGo()
	if err != nil {
		t.Fatalf("the pure-Go backend does not start: %v", err)
	}
	return backend
}

var xla = sync.OnceValues(func() (compute.Backend, error) {
	path, err := asset.CPUPlugin()
	if err != nil {
		return nil, err
	}
	return open("xla:" + path + ",tf32=false") // as package device does
})

var pureGo = sync.OnceValues(func() (compute.Backend, error) { return open("go") })

// open starts a backend and turns a panic of its constructor into an error.
func open(config string) (backend compute.Backend, err error) {
	// Without this, go-xla tries to download its own plugin and may end the process.
	if err := os.Setenv("GOMLX_NO_AUTO_INSTALL", "1"); err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("opening backend %q: %v", config, r)
		}
	}()
	return compute.NewWithConfig(config)
}
