package asset

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// clone makes a folder that looks like a clone after set-up and clears the variables that would win
// over it.
func clone(t *testing.T) string {
	t.Helper()
	for _, env := range []string{EnvRoot, EnvCPUPlugin, EnvCUDAPlugin, EnvSmallModel, EnvGoldens} {
		t.Setenv(env, "")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "a clone")
	write(t, filepath.Join(root, "go.mod"), "// a comment\nmodule "+Module+"\n\ngo 1.27.1\n")
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRootIsFoundFromBelow(t *testing.T) {
	root := clone(t)
	below := filepath.Join(root, "notebooks", "deep")
	write(t, filepath.Join(below, "x"), "")
	// The nested tools module must not be taken for the clone.
	write(t, filepath.Join(root, "tools", "go.mod"), "module "+Module+"/tools\n")
	for _, dir := range []string{root, below, filepath.Join(root, "tools")} {
		t.Chdir(dir)
		got, err := Root()
		if err != nil || got != root {
			t.Errorf("Root() from %s = %q, %v; want %q", dir, got, err, root)
		}
	}
}

func TestRootOutsideAClone(t *testing.T) {
	clone(t)
	t.Chdir(t.TempDir())
	// The test binary lies in a temporary folder too, so neither place has a clone above it.
	got, err := Root()
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("Root() = %q, %v; want an error that is ErrNotFound", got, err)
	}
	if _, err = CPUPlugin(); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), EnvCPUPlugin) {
		t.Errorf("CPUPlugin() = %v; want ErrNotFound that names %s", err, EnvCPUPlugin)
	}
}

func TestRootVariable(t *testing.T) {
	root := clone(t)
	t.Chdir(t.TempDir())
	t.Setenv(EnvRoot, root)
	if got, err := Root(); err != nil || got != root {
		t.Errorf("Root() = %q, %v; want %q", got, err, root)
	}
	t.Setenv(EnvRoot, filepath.Dir(root))
	if got, err := Root(); err == nil || !strings.Contains(err.Error(), EnvRoot) {
		t.Errorf("Root() = %q, %v; want an error that names %s", got, err, EnvRoot)
	}
}

func TestAssets(t *testing.T) {
	for _, test := range []struct {
		name string
		find func() (string, error)
		env  string
		path string // relative to the clone
		dir  bool
	}{
		{"CPUPlugin", CPUPlugin, EnvCPUPlugin, ".setup/plugins/cpu/pjrt_c_api_cpu_plugin.so", false},
		{"CUDAPlugin", CUDAPlugin, EnvCUDAPlugin, ".setup/plugins/cuda/xla_cuda_plugin.so", false},
		{"SmallModel", SmallModel, EnvSmallModel, ".setup/models/SmolLM2-135M-Instruct.Q4_1.gguf", false},
		{"Goldens", Goldens, EnvGoldens, "../shared/goldens", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := clone(t)
			t.Chdir(root)
			path := filepath.Join(root, test.path)

			if got, err := test.find(); !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "\n") ||
				!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.env) {
				t.Errorf("absent: %q, %v; want ErrNotFound in one line with %s and %s", got, err, path, test.env)
			}

			inside := path
			if test.dir {
				inside = filepath.Join(path, "README")
			}
			write(t, inside, "x")
			if got, err := test.find(); err != nil || got != path {
				t.Errorf("present: %q, %v; want %q", got, err, path)
			}

			// Something else under the variable's name is an error, though the set-up's own file is
			// there.
			for _, bad := range []string{filepath.Join(root, "nothing"), inside, root} {
				if isDir := bad == root; isDir == test.dir && bad != filepath.Join(root, "nothing") {
					continue
				}
				t.Setenv(test.env, bad)
				if got, err := test.find(); err == nil || !strings.Contains(err.Error(), test.env) {
					t.Errorf("%s=%s: %q, %v; want an error that names %s", test.env, bad, got, err, test.env)
				}
			}

			other := root
			if !test.dir {
				other = filepath.Join(root, "other")
				write(t, other, "y")
			}
			t.Setenv(test.env, other)
			if got, err := test.find(); err != nil || got != other {
				t.Errorf("%s=%s: got %q, %v", test.env, other, got, err)
			}
		})
	}
}

func TestCompiled(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte("module "+Module+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvRoot, root)
	for _, c := range []struct{ env, want string }{{"", ""}, {Off, ""}, {root + "/x/../here", root + "/here"}} {
		t.Setenv(EnvCompiled, c.env)
		if got := Compiled(); got != c.want {
			t.Errorf("without set-up, %s=%q: %q, want %q", EnvCompiled, c.env, got, c.want)
		}
	}
	if err := os.Mkdir(filepath.Join(root, SetupDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ env, want string }{{"", root + "/.setup/compiled"}, {Off, ""}} {
		t.Setenv(EnvCompiled, c.env)
		if got := Compiled(); got != c.want {
			t.Errorf("with set-up, %s=%q: %q, want %q", EnvCompiled, c.env, got, c.want)
		}
	}
}
