//go:build !linux || !cgo

package device

import (
	"fmt"
	"runtime"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// errNoXLA says why this program has no XLA.
var errNoXLA = noXLA(runtime.GOOS, runtime.GOARCH)

func noXLA(system, machine string) error {
	missing := "Linux"
	if system == "linux" {
		missing = "cgo, that is CGO_ENABLED=1 and a C compiler when it is built"
	}
	return fmt.Errorf("this program has no XLA (%s/%s): want %s; device %q, GoMLX's pure-Go backend, runs everywhere, far slower ($%s=%s makes it the default)",
		system, machine, missing, PureGo, EnvDefault, PureGo)
}

func openPlugin(string, string) (compute.Backend, error) { return nil, errNoXLA }

func describePlugin(compute.Backend, *Info) {}

// NotKept returns nil: a program without XLA keeps no compiled graphs.
func NotKept() error { return nil }

// KeepCompiled returns an error: a program without XLA has no compiled graphs to keep.
func KeepCompiled(compute.Backend, string) error {
	return usererr.New("device.KeepCompiled: %w", errNoXLA)
}
