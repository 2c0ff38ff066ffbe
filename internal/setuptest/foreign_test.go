//go:build unix

package setuptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A clone of somebody else that cannot be written, and is not set up for others: one line that says
// so, who has to do what, and nothing of bash's own.
func TestCloneOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	clone, _ := bareMachine(t)
	for dir := clone; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	python := filepath.Join(clone, ".setup", "venv", "bin", "python")
	kernels := filepath.Join(clone, ".setup", "venv", "share", "jupyter", "kernels", "gonb", "kernel.json")
	modules := filepath.Join(clone, "modules")
	put := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const user = 54326
	home := t.TempDir()
	if err := os.Chown(home, user, user); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(home); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	setup := func() (stdout, stderr string, status int) {
		c := exec.Command(filepath.Join(clone, "scripts", "setup"))
		c.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + home}
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		return call(t, c)
	}
	says := func(name, want string) {
		t.Helper()
		stdout, stderr, status := setup()
		if status != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, want) ||
			!strings.Contains(stderr, "belongs to root") || !strings.Contains(stderr, "./scripts/setup --shared") {
			t.Errorf("%s: exit status %d, %q, %q; want 1 and one line with %q", name, status, stdout, stderr, want)
		}
	}
	says("not set up", "its set-up is not finished")
	put(python, "#!/bin/sh\nexit 1\n", 0o755)
	for _, name := range []string{"gonb", "goimports", "kernelhost", "buildcache"} {
		put(filepath.Join(clone, "bin", name), "", 0o755)
	}
	says("a Python that others cannot run", "does not run for you")
	put(python, "#!/bin/sh\n", 0o755)
	put(kernels, "{\n    \"GOMODCACHE\": \""+modules+"\",\n}\n", 0o644)
	says("modules out of reach", "its Go modules, "+modules)
	put(filepath.Join(modules, "cache", "download", "x"), "", 0o644)
	if stdout, stderr, status := setup(); status != 0 || stdout+stderr != "" {
		t.Errorf("set up for others: exit status %d, %q, %q", status, stdout, stderr)
	}
	if _, err := os.Stat(filepath.Join(home, ".local", "share", "kvqbook", "jupyter", "data")); err != nil {
		t.Error(err)
	}
}

// In a clone for everybody others read all that the set-up made and write nothing, but the tokens
// of the owner's Jupyter, and a pack that is being made, are not theirs to read.
func TestWhatOthersRead(t *testing.T) {
	dir := t.TempDir()
	modes := map[string][2]os.FileMode{ // before and after
		".setup/venv/file":            {0o600, 0o644},
		".setup/venv/program":         {0o700, 0o755},
		".setup/venv/written":         {0o666, 0o644},
		".setup/compiled/graph":       {0o640, 0o644},
		".setup/jupyter/runtime/file": {0o644, 0o644},
		".setup/pack.aB3dEf/file":     {0o600, 0o600},
		".setup/packs/file":           {0o600, 0o644},
		"bin/program":                 {0o711, 0o755},
		"notebooks/file":              {0o600, 0o600},
	}
	for file, mode := range modes {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode[0]); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/kvq-no-such-file", filepath.Join(dir, "bin", "link")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("bash", "-ec", `eval "$(sed -n '/^let_others_read()/,/^}/p' "$1")"; KVQ_SETUP=$PWD/.setup stamps=$PWD/.setup/venv; let_others_read`,
		"bash", filepath.Join(root(t), "scripts", "setup"))
	c.Dir = dir
	if stdout, stderr, status := call(t, c); status != 0 || stdout+stderr != "" {
		t.Fatalf("exit status %d, %q, %q", status, stdout, stderr)
	}
	for file, mode := range modes {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != mode[1] {
			t.Errorf("%s: %v, %v; want %v", file, info.Mode(), err, mode[1])
		}
	}
	for folder, mode := range map[string]os.FileMode{".setup": 0o755, ".setup/venv": 0o755, ".setup/jupyter": 0o700, "notebooks": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, folder)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %v", folder, info.Mode(), err, mode)
		}
	}
}
