// Package asset finds the files that ./scripts/setup put into the clone: XLA's plugins, the small
// model, and the golden values that lie beside the clone.
//
// Each file has an environment variable that names another one in its place; a variable that is set
// always wins, and a variable that names nothing is an error rather than a reason to look
// elsewhere.
package asset

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Environment variables that override where an asset is looked for.
const (
	EnvRoot       = "KVQ_ROOT"        // the clone
	EnvCPUPlugin  = "KVQ_PLUGIN_CPU"  // XLA's CPU plugin, a .so file
	EnvCUDAPlugin = "KVQ_PLUGIN_CUDA" // XLA's CUDA plugin, a .so file
	EnvSmallModel = "KVQ_MODEL"       // the small model, a .gguf file
	EnvGoldens    = "KVQ_GOLDENS"     // the folder of golden values
	EnvCompiled   = "KVQ_COMPILED"    // the folder of what XLA compiled, or [Off]
)

// Off is the value of [EnvCompiled] for no such folder.
const Off = "off"

// Module is the module path by which a clone of this repository is known.
const Module = "github.com/kvqbook/kvqbook"

// Where ./scripts/setup puts its files, relative to the clone. The script names the same paths.
const (
	SetupDir       = ".setup"
	cpuPluginPath  = SetupDir + "/plugins/cpu/pjrt_c_api_cpu_plugin.so"
	cudaPluginPath = SetupDir + "/plugins/cuda/xla_cuda_plugin.so"
	smallModelPath = SetupDir + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
	goldensPath    = "../shared/goldens"
	compiledPath   = SetupDir + "/compiled"
)

// ErrNotFound is in the chain of every error that says an asset is not there.
var ErrNotFound = errors.New("not found")

// notFound is an error of one line that errors.Is recognizes as [ErrNotFound].
type notFound struct{ msg string }

func (e *notFound) Error() string        { return e.msg }
func (e *notFound) Is(target error) bool { return target == ErrNotFound }

func notFoundf(format string, args ...any) error { return &notFound{fmt.Sprintf(format, args...)} }

// Root returns the absolute path of the clone: $KVQ_ROOT; else the nearest folder, from the working
// directory upward, whose go.mod declares [Module]; else the nearest such folder from the running
// program's own folder upward (bin/kvq called from anywhere). It returns an error with
// [ErrNotFound] where there is none.
func Root() (string, error) {
	if dir := os.Getenv(EnvRoot); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("%s=%q: %w", EnvRoot, os.Getenv(EnvRoot), err)
		}
		if !isRoot(dir) {
			return "", notFoundf("%s=%q: wanted a clone of %s, found no go.mod of it there; unset %s or correct it",
				EnvRoot, dir, Module, EnvRoot)
		}
		return dir, nil
	}
	if dir, err := os.Getwd(); err == nil {
		if root, ok := rootAbove(dir); ok {
			return root, nil
		}
	}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			if root, ok := rootAbove(filepath.Dir(exe)); ok {
				return root, nil
			}
		}
	}
	return "", notFoundf("no clone of %s at or above the working directory; change into the clone or set %s to its path",
		Module, EnvRoot)
}

// rootAbove returns dir or the nearest folder above it that is a clone.
func rootAbove(dir string) (string, bool) {
	for {
		if isRoot(dir) {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// isRoot reports whether dir holds a go.mod that declares Module. Nested modules (tools/) have
// another path.
func isRoot(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 && fields[0] == "module" {
			return strings.Trim(fields[1], `"`) == Module
		}
	}
	return false
}

// CPUPlugin returns the path of XLA's CPU plugin: $KVQ_PLUGIN_CPU, else the one of the set-up.
func CPUPlugin() (string, error) {
	return find("XLA's CPU plugin", EnvCPUPlugin, cpuPluginPath, "run ./scripts/setup", isFile)
}

// CUDAPlugin returns the path of XLA's CUDA plugin: $KVQ_PLUGIN_CUDA, else the one of the set-up.
// Package device looks in further places when there is none here.
func CUDAPlugin() (string, error) {
	return find("XLA's CUDA plugin", EnvCUDAPlugin, cudaPluginPath, "run ./scripts/setup --cuda", isFile)
}

// SmallModel returns the path of the small model's GGUF file: $KVQ_MODEL, else the one of the
// set-up.
func SmallModel() (string, error) {
	return find("the small model", EnvSmallModel, smallModelPath, "run ./scripts/setup", isFile)
}

// Goldens returns the folder of golden values made with transformers: $KVQ_GOLDENS, else
// ../shared/goldens beside the clone.
func Goldens() (string, error) {
	return find("the golden values", EnvGoldens, goldensPath, "put them there", isDir)
}

// Compiled returns the folder that keeps what XLA compiled, which need not be there yet:
// $KVQ_COMPILED, else one of the set-up; "" for none, which $KVQ_COMPILED=off asks for, and what a
// program has that finds no set-up.
func Compiled() string {
	switch dir := os.Getenv(EnvCompiled); dir {
	case "":
	case Off:
		return ""
	default:
		if dir, err := filepath.Abs(dir); err == nil {
			return dir
		}
		return ""
	}
	root, err := Root()
	if err != nil || isDir.check(filepath.Join(root, SetupDir)) != "" {
		return ""
	}
	return filepath.Join(root, compiledPath)
}

// kind says what sort of file an asset is and how to tell it.
type kind struct {
	name string
	is   func(fs.FileInfo) bool
}

var (
	isFile = kind{"file", func(info fs.FileInfo) bool { return info.Mode().IsRegular() }}
	isDir  = kind{"folder", fs.FileInfo.IsDir}
)

// NotKept is [device.NotKept], which says why the folder of Compiled was refused. Package device
// sets it when it is initialized; nil in programs without it. So who only shows the line need not
// link XLA.
//
// [device.NotKept]: https://pkg.go.dev/github.com/kvqbook/kvqbook/device#NotKept
var NotKept func() error

// find returns the absolute path of one asset: what env names, else rel inside the clone. remedy
// says, in the imperative, how to get the asset.
func find(what, env, rel, remedy string, want kind) (string, error) {
	if path := os.Getenv(env); path != "" {
		path, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("%s: %s=%q: %w", what, env, os.Getenv(env), err)
		}
		if came := want.check(path); came != "" {
			return "", notFoundf("%s: %s=%q: wanted a %s, %s; correct %s or unset it",
				what, env, path, want.name, came, env)
		}
		return path, nil
	}
	root, err := Root()
	if err != nil {
		return "", notFoundf("%s: %v, or set %s to the %s itself", what, err, env, want.name)
	}
	path := filepath.Join(root, rel)
	if came := want.check(path); came != "" {
		return "", notFoundf("%s: wanted the %s %s, %s; %s or set %s", what, want.name, path, came, remedy, env)
	}
	return path, nil
}

// check returns "" when path is of this kind, else what is there instead.
func (k kind) check(path string) string {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "nothing is there"
	case err != nil:
		return err.Error()
	case !k.is(info):
		return fmt.Sprintf("found something else there (mode %s)", info.Mode())
	}
	return ""
}
