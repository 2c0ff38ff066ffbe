package compiled

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestProcessorOf(t *testing.T) {
	const one = "processor\t: 0\nmodel name\t: A 1\ncpu MHz\t\t: 2445.4\nflags\t\t: fpu avx2\n\n"
	if got, want := processorOf([]byte(one+"processor\t: 1\nmodel name\t: B\n")), "A 1\nfpu avx2"; got != want {
		t.Errorf("processorOf = %q, want %q", got, want)
	}
	if got := processorOf(nil); got != "" {
		t.Errorf("processorOf of nothing = %q", got)
	}
}

// All that decides what is compiled makes another name, also where two parts only share their bytes
// differently.
func TestNames(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "plugin.so")
	if err := os.WriteFile(plugin, []byte("elf"), 0o600); err != nil {
		t.Fatal(err)
	}
	of := func() identity {
		i, err := identify(plugin, false)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := of()
	if again := of(); string(again) != string(first) {
		t.Errorf("identify twice: %q and %q", first, again)
	}
	names := map[string]string{}
	add := func(what string, i identity, parts ...string) {
		var all [][]byte
		for _, p := range parts {
			all = append(all, []byte(p))
		}
		name := i.name(all...)
		if same, ok := names[name]; ok {
			t.Errorf("%s and %s have the same name", what, same)
		}
		names[name] = what
	}
	add("first", first, "mlir", "code", "options")
	add("another program", first, "mlir", "code2", "options")
	add("the bytes elsewhere", first, "mlir", "codeo", "ptions")
	t.Setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
	add("other flags", of(), "mlir", "code", "options")
	t.Setenv("XLA_FLAGS", "")
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(plugin, later, later); err != nil {
		t.Fatal(err)
	}
	add("another plugin", of(), "mlir", "code", "options")

	if _, err := identify(plugin+"-not-there", false); err == nil {
		t.Error("identify gave no error for a plugin that is not there")
	}
}

// The driver and each GPU's model tell machines apart; where a GPU is not described, nothing does.
func TestGPUsOf(t *testing.T) {
	dir := t.TempDir()
	if got, err := gpusOf(dir); err == nil {
		t.Errorf("no driver: %q", got)
	}
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("version", "NVRM version: 580.1\n")
	if got, err := gpusOf(dir); err == nil {
		t.Errorf("no GPU: %q", got)
	}
	write("gpus/0000:02/information", "Model: \t T4\nIRQ: 8\n")
	write("gpus/0000:01/information", "Model: \t H100\nIRQ: 7\n")
	const want = "NVRM version: 580.1\nModel: \t H100\nModel: \t T4\n"
	if got, err := gpusOf(dir); err != nil || got != want {
		t.Errorf("gpusOf = %q, %v, want %q", got, err, want)
	}
}
