package guardtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/private"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// systems are those for which everything builds without cgo, and so without XLA: GOOS/GOARCH.
var systems = []string{"darwin/arm64", "windows/amd64", "js/wasm", "linux/arm64", "linux/amd64"}

// public are the packages that importers and the command consist of.
var public = []string{"./kvq/...", "./llama/...", "./tokenizer/...", "./hub/...", "./device/...", "./cmd/kvq"}

// goFor runs the go command in the clone for another system, without cgo. It may fetch the modules
// that only other systems need, which a fresh machine lacks.
func goFor(t *testing.T, system string, args ...string) string {
	t.Helper()
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	goos, goarch, _ := strings.Cut(system, "/")
	c := exec.Command("go", args...)
	c.Dir = root
	c.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go %s for %s: %v\n%s%s", strings.Join(args, " "), system, err, said.String(), out)
	}
	return string(out)
}

// Elsewhere than on Linux with cgo nothing is linked that needs XLA: go-xla's backend, which does
// not build there. TestOtherSystems builds everything.
func TestOtherSystemsImports(t *testing.T) {
	all := strings.Fields(goFor(t, "windows/amd64", append([]string{"list", "-deps"}, public...)...))
	if len(all) < 100 {
		t.Fatalf("%d packages, want those of the command at least", len(all))
	}
	for _, path := range all {
		for _, xla := range []string{private.GoXLA + "/compute", private.GoXLA + "/pjrt", asset.Module + "/internal/compiled"} {
			if strings.HasPrefix(path, xla) {
				t.Errorf("%s is linked", path)
			}
		}
	}
}

// The libraries, package device and the command build for systems without XLA.
func TestOtherSystems(t *testing.T) {
	testlane.OnlyAll(t, "builds the standard library and GoMLX anew for each system")
	for _, system := range systems {
		t.Run(system, func(t *testing.T) {
			goFor(t, system, append([]string{"build"}, public...)...)
			goFor(t, system, "vet", "./device", "./internal/pjrt", "./internal/benchcmd")
		})
	}
}

// A program without XLA runs: package device tells what is missing and opens the pure-Go backend,
// and the command makes tokens there. The same program for WebAssembly lists its devices.
func TestWithoutXLA(t *testing.T) {
	testlane.OnlyAll(t, "builds the command without cgo, and for WebAssembly")
	here := runtime.GOOS + "/" + runtime.GOARCH
	goFor(t, here, "test", "./device")
	program := filepath.Join(t.TempDir(), "kvq")
	goFor(t, here, "build", "-o", program, "./cmd/kvq")
	say := func(program string, args ...string) string {
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Errorf("kvq %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for out, want := range map[string]string{
		say(program, "devices"): "go: platform go",
		say(program, "generate", "--backend", "go:ops_sequential", "--prompt", "The capital of France is", "--max-new-tokens", "2"): "Paris",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q, want %q in it", out, want)
		}
	}
	if out, err := exec.Command(program, "generate", "--prompt", "hi").CombinedOutput(); err == nil || !strings.Contains(string(out), "this program has no XLA") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("without --backend: %v, %q, want one line that says what is missing", err, out)
	}
	if _, err := exec.LookPath("node"); err != nil {
		t.Log("no node: WebAssembly is built and not run")
		return
	}
	wasm := filepath.Join(t.TempDir(), "kvq.wasm")
	goFor(t, "js/wasm", "build", "-o", wasm, "./cmd/kvq")
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(strings.TrimSpace(string(goroot)), "lib", "wasm", "go_js_wasm_exec"), wasm, "devices")
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "(js/wasm)") || !strings.Contains(string(out), "go: platform go") {
		t.Errorf("kvq devices in WebAssembly: %v, %q", err, out)
	}
}
