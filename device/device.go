// Package device opens what graphs run on: XLA on the CPU, XLA on an NVIDIA GPU, any other XLA
// plugin, or GoMLX's pure-Go backend.
//
// Commands, notebooks and tests choose a device here and hand the compute.Backend on; the libraries
// (kvq, llama) never import this package. Nothing is ever downloaded: a plugin that is not on the
// machine is an error that says how to get it.
//
//	backend, err := device.Open("xla:cpu")
//
// XLA comes as a PJRT plugin, a shared library that is loaded into the process. Its own settings,
// the variable XLA_FLAGS, are read once, when the first plugin of the process is loaded; a value
// that the user has set is kept.
//
// XLA needs Linux, and a program that was built with cgo. Elsewhere (macOS, Windows, WebAssembly)
// the package builds too: it opens the pure-Go backend, and says of XLA what is missing.
package device

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Names of devices. Besides these, "xla:PATH" names a PJRT plugin by its file.
const (
	XLACPU = "xla:cpu" // XLA on the CPU, the plugin of ./scripts/setup
	// XLA on an NVIDIA GPU, the plugin of ./scripts/setup --cuda or of a Python with JAX
	XLACUDA = "xla:cuda"
	PureGo  = "go" // GoMLX's own backend: no plugin, far slower
)

// shortNames are what people write for a device elsewhere.
var shortNames = map[string]string{"cpu": XLACPU, "cuda": XLACUDA, "gpu": XLACUDA, "go:" + sequential: PureGo}

// sequential is the one setting of the pure-Go backend with which loops end, see gx.Check.
const sequential = "ops_sequential"

// fullName is the name of a device, Default where there is none.
func fullName(name string) string {
	if name == "" {
		return Default()
	}
	if full := shortNames[name]; full != "" {
		return full
	}
	return name
}

// EnvDefault names the device that Open("") opens.
const EnvDefault = "KVQ_BACKEND"

// opening serializes Open and List: loading a plugin is not safe for concurrent use.
var opening sync.Mutex

// Open opens the device of that name: [XLACPU], [XLACUDA], [PureGo] or "xla:PATH", or short "cpu",
// "cuda" or "gpu"; "go:ops_sequential", as GoMLX writes it, is PureGo. The empty name stands for
// $KVQ_BACKEND; where that is empty too, for XLACUDA if the machine has an NVIDIA GPU and its
// plugin is found, and for XLACPU otherwise.
//
// XLA's plugins for CPUs and for NVIDIA's GPUs keep the graphs that took long to compile in the
// set-up's folder, or in $KVQ_COMPILED, and find them there in the next process; "off" in the
// variable's place stops that. The variable is read once, with the plugin's first use.
//
// The caller owns the backend and ends it with Finalize. Open may be called from several
// goroutines.
//
// Its errors are one line each, and [ErrInput], since a device that cannot be had was the wrong one
// to ask for: the name is not one of these, the program has no XLA, or the plugin is missing, is
// cut off, is no plugin, does not load, or finds no device.
func Open(name string) (compute.Backend, error) {
	backend, err := open(name)
	if err != nil {
		return nil, usererr.New("%w", err)
	}
	return backend, nil
}

func open(name string) (compute.Backend, error) {
	name = fullName(name)
	if name == PureGo {
		backend, err := gobackend.New(sequential)
		return backend, oneLine(err, "device %q", name)
	}
	path, err := pluginPath(name)
	if err != nil {
		return nil, err
	}
	return openPlugin(name, path)
}

// Default returns the name that Open("") opens.
func Default() string {
	if name := os.Getenv(EnvDefault); name != "" {
		return fullName(name)
	}
	if HasNVIDIA() {
		if _, err := cudaPlugin(); err == nil {
			return XLACUDA
		}
	}
	return XLACPU
}

// pluginPath returns the absolute path of the plugin that name stands for.
func pluginPath(name string) (string, error) {
	var path string
	var err error
	switch kind, rest, _ := strings.Cut(name, ":"); {
	case kind == "xla" && errNoXLA != nil:
		err = errNoXLA
	case name == XLACPU:
		path, err = asset.CPUPlugin()
	case name == XLACUDA:
		path, err = cudaPlugin()
	case kind == "xla" && strings.ContainsRune(rest, filepath.Separator):
		path, err = filepath.Abs(rest)
	default:
		return "", fmt.Errorf("device %q: wanted %q, %q, \"xla:/path/to/plugin.so\" or %q", name, XLACPU, XLACUDA, PureGo)
	}
	if err != nil {
		return "", fmt.Errorf("device %q: %w", name, err)
	}
	return path, nil
}

// oneLine wraps err, without the stack traces and line breaks that XLA's messages may carry. It
// returns nil for nil.
func oneLine(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	return fmt.Errorf(format+": %s", append(args, strings.Join(lines, "; "))...)
}
