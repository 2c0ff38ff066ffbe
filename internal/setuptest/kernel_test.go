package setuptest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kernel is what kernel.json says.
type kernel struct {
	Argv []string
	Env  map[string]string
}

// kernelOf has scripts/kernel.py of a clone describe the kernel.
func kernelOf(t *testing.T, clone string) kernel {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("bash", "-c", `source scripts/env.sh; exec python3 scripts/kernel.py "$1"`, "kernel", dir)
	cmd.Dir = clone
	if _, stderr, status := call(t, cmd); status != 0 {
		t.Fatal(stderr)
	}
	data, err := os.ReadFile(filepath.Join(dir, "kernels", "gonb", "kernel.json"))
	if err != nil {
		t.Fatal(err)
	}
	var k kernel
	if err := json.Unmarshal(data, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// Cells are linked without what a debugger wants, and look for no modules beyond the clone's. What
// they need is named by path, so any HOME will do; what they compile goes into the user's cache.
func TestKernelsEnvironment(t *testing.T) {
	k := kernelOf(t, root(t))
	if flags := k.Env["GOFLAGS"]; flags != "-buildvcs=false -ldflags=-w" {
		t.Errorf("GOFLAGS %q", flags)
	}
	if k.Env["GOPROXY"] != "off" {
		t.Errorf("GOPROXY %q", k.Env["GOPROXY"])
	}
	modules, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil || k.Env["GOMODCACHE"] != strings.TrimSpace(string(modules)) {
		t.Errorf("GOMODCACHE %q, want %s, %v", k.Env["GOMODCACHE"], modules, err)
	}
	if cache, ok := k.Env["GOCACHE"]; ok {
		t.Errorf("GOCACHE %q, want each user's own", cache)
	}
	if len(k.Argv) < 2 || filepath.Base(k.Argv[0]) != "kernelhost" || filepath.Base(k.Argv[1]) != "gonb" {
		t.Errorf("the kernel is %q, want kernelhost and gonb", k.Argv)
	}
}

// A clone that holds its own modules has the kernel use these, the toolchain among them, and what
// was compiled there.
func TestKernelOfAClonesOwnGo(t *testing.T) {
	clone := t.TempDir()
	for _, file := range []string{"scripts/env.sh", "scripts/kernel.py", "go.mod"} {
		data, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(clone, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(clone, file), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	clone, err := filepath.EvalSymlinks(clone)
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(clone, ".setup", "go", "mod")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	k := kernelOf(t, clone)
	bin := clone + "/bin"
	if got := k.Env["GOMODCACHE"]; got != modules {
		t.Errorf("GOMODCACHE %q, want %q", got, modules)
	}
	if got, want := k.Env["GOCACHEPROG"], bin+"/buildcache "+clone+"/.setup/go/build"; got != want {
		t.Errorf("GOCACHEPROG %q, want %q", got, want)
	}
	toolchain := modules + "/golang.org/toolchain@v0.0.1-" + k.Env["GOTOOLCHAIN"] + ".linux-amd64/bin"
	if got := k.Env["PATH"]; got != clone+"/scripts/kernel:"+bin+":"+toolchain+":${PATH}" {
		t.Errorf("PATH %q", got)
	}
}

// The kernel's gopls is that of the clone, with a limit of memory that it had not.
func TestKernelsGopls(t *testing.T) {
	clone := t.TempDir()
	if err := os.Mkdir(filepath.Join(clone, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	const fake = "#!/bin/sh\necho $GOMEMLIMIT \"$@\"\n"
	if err := os.WriteFile(filepath.Join(clone, "bin", "gopls"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	path, _, _ := strings.Cut(kernelOf(t, root(t)).Env["PATH"], ":")
	for limit, want := range map[string]string{"": "600MiB -listen unix;/a b\n", "GOMEMLIMIT=2GiB": "2GiB -listen unix;/a b\n"} {
		c := exec.Command(filepath.Join(path, "gopls"), "-listen", "unix;/a b")
		c.Env = []string{"KVQ_ROOT=" + clone, "PATH=/usr/bin:/bin", limit}
		if stdout, stderr, status := call(t, c); status != 0 || stdout != want {
			t.Errorf("%q: exit status %d, %q, %q; want %q", limit, status, stdout, stderr, want)
		}
	}
}
