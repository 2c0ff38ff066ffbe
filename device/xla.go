//go:build linux && cgo

package device

import (
	"fmt"
	"os"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/go-xla/pjrt"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// errNoXLA is nil: this program has XLA.
var errNoXLA error

func init() {
	// go-xla downloads plugins by itself when another package of the program links its installer.
	// Both are needed: its own init has read the variable already, and processes started from here
	// should see it too.
	os.Setenv(xla.NoAutoInstallEnv, "1")
	xla.EnableAutoInstall(false)
}

// openPlugin opens the device of that name, whose plugin is at path.
func openPlugin(name, path string) (compute.Backend, error) {
	opening.Lock()
	defer opening.Unlock()
	p, err := loadPlugin(path)
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", name, err)
	}
	// Float32 means float32, as in PyTorch: on CUDA go-xla asks for TF32, 10 bits of mantissa,
	// unless it is told not to
	// (https://github.com/gomlx/go-xla/blob/v0.4.13/compute/xla/xla.go#L297).
	backend, err := xla.NewWithOptions(p.handle+",tf32=false", nil)
	if err != nil {
		return nil, oneLine(errors.Cause(err), "device %q: plugin %s loads, but gives no device%s", name, path, hint(p.platform))
	}
	return backend, nil
}

// hint says what to try where a plugin of this platform found no device.
func hint(platform string) string {
	if platform != "cuda" {
		return ""
	}
	if !HasNVIDIA() {
		return " (this machine shows no NVIDIA GPU; " + XLACPU + " runs without one)"
	}
	return " (is the NVIDIA driver recent enough for CUDA 13, that is 580 or newer?)"
}

// describePlugin adds to info what is known of an XLA backend's plugin.
func describePlugin(backend compute.Backend, info *Info) {
	onXLA, ok := backend.(*xla.Backend)
	if !ok {
		return
	}
	handle := onXLA.PluginName()
	opening.Lock()
	defer opening.Unlock()
	for _, p := range loaded {
		if p.handle == handle {
			info.Plugin, info.Platform = p.path, p.platform
		}
	}
	cpu, _ := asset.CPUPlugin()
	switch {
	case info.Platform == "cuda":
		info.Name = XLACUDA
	case info.Platform == "cpu" && info.Plugin == cpu:
		info.Name = XLACPU
	case info.Plugin != "":
		info.Name = "xla:" + info.Plugin
	}
	if p, err := pjrt.GetPlugin(handle); err == nil {
		major, minor := p.Version()
		info.Version = fmt.Sprintf("%d.%d", major, minor)
	}
}
