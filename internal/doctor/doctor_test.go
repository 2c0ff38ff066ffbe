package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// surroundings are a machine made up for a test: a clone before set-up, an empty PATH, no network.
func surroundings(t *testing.T) *Machine {
	t.Helper()
	for _, name := range []string{"CC", "PYTHON", asset.EnvCPUPlugin, asset.EnvCUDAPlugin, asset.EnvSmallModel, asset.EnvCompiled, device.EnvDefault,
		"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTPS_PROXY", "https_proxy",
		"HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"} {
		t.Setenv(name, "")
	}
	clone := filepath.Join(t.TempDir(), "a clone")
	put(t, filepath.Join(clone, "go.mod"), "module "+asset.Module+"\n\ntoolchain go1.99.9\n", 0o644)
	t.Setenv(asset.EnvRoot, clone)
	t.Setenv("PATH", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	m := Here()
	m.System = t.TempDir()
	m.HasGPU = func() bool { return false }
	m.Try = func(context.Context, string) Trial { return Trial{Error: "nothing is there", Missing: true} }
	return m
}

// put writes a file, and the folders above it.
func put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// program puts a shell script on a PATH of its own.
func program(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	put(t, filepath.Join(dir, name), "#!/bin/sh\n"+script+"\n", 0o755)
	t.Setenv("PATH", dir)
	return filepath.Join(dir, name)
}

// want compares a finding with a state and with what its line says.
func want(t *testing.T, what string, f Finding, state State, says string) {
	t.Helper()
	if line := f.Found + ". Cure: " + f.Cure; f.State != state || !strings.Contains(line, says) {
		t.Errorf("%s: %s, %q; want %s with %q", what, f.State, line, state, says)
	}
}

// A clone in which set-up never ran gets a line for everything, and each failure its cure.
func TestNothingIsSetUp(t *testing.T) {
	m := surroundings(t)
	var names, waited []string
	states := map[string]State{}
	for f := range m.Examine(context.Background(), func(name string) { waited = append(waited, name) }) {
		names = append(names, f.Name)
		states[f.Name] = f.State
		if f.Found == "" || strings.Contains(f.Found+f.Cure, "\n") {
			t.Errorf("%s: %+v, want one line", f.Name, f)
		}
		if f.State == Fails && f.Cure == "" {
			t.Errorf("%s fails without a cure: %s", f.Name, f.Found)
		}
	}
	if len(names) != len(things) || strings.Join(names, "|") != strings.Join(waited, "|") {
		t.Errorf("looked at %q, told %q", names, waited)
	}
	for name, state := range map[string]State{"C compiler": Fails, "Go toolchain": Fails, "Python": Fails, "Jupyter kernel": Fails, "small model": Fails,
		"XLA on the CPU": Fails, "GPU": Absent, "default device": OK, "memory": OK, "compiled graphs": Absent, "hub": Absent, "proxy": OK} {
		if states[name] != state {
			t.Errorf("%s: %s, want %s", name, states[name], state)
		}
	}
}

// Elsewhere than in a clone there is no set-up to miss.
func TestNoClone(t *testing.T) {
	m := surroundings(t)
	m.Clone = ""
	for name, look := range map[string]func(context.Context) Finding{"Python": m.python, "kernel": m.kernel, "disk": m.disk} {
		want(t, name, look(context.Background()), Absent, asset.EnvRoot)
	}
}

// Things are looked at side by side, and what was given up on does not keep the others waiting.
func TestSideBySide(t *testing.T) {
	m := surroundings(t)
	ctx, cancel := context.WithCancel(context.Background())
	m.Try = func(ctx context.Context, _ string) Trial {
		<-ctx.Done()
		return Trial{Error: "given up"}
	}
	begin := time.Now()
	time.AfterFunc(200*time.Millisecond, cancel)
	for range m.Examine(ctx, nil) {
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s after it was cancelled", took)
	}
}
