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

// NVIDIA's libraries tell machines apart, wherever the plugin finds them: in wheels beside it and
// in folders of $LD_LIBRARY_PATH. Where there are none, or a folder of that is not there, nothing
// fails.
func TestLibrariesOf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a [folder]")
	plugin := filepath.Join(dir, "site-packages", "jax_plugins", "xla_cuda13", "plugin.so")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("LD_LIBRARY_PATH", filepath.Join(dir, "none")+":"+filepath.Join(dir, "own"))
	seen := map[string]string{librariesOf(plugin): "nothing there"}
	changes := func(what string, want bool) {
		t.Helper()
		is := librariesOf(plugin)
		if other, known := seen[is]; known == want {
			t.Errorf("%s: as %q: %v, want %v\n%s", what, other, known, !want, is)
		}
		seen[is] = what
	}
	wheels := filepath.Join(dir, "site-packages", "nvidia")
	write(filepath.Join(wheels, "cudnn", "lib", "libcudnn.so.9"), "9.1")
	changes("cuDNN", true)
	changes("the same", false)
	write(filepath.Join(wheels, "cudnn", "lib", "libcudnn.so.9"), "9.10")
	changes("another cuDNN", true)
	write(filepath.Join(wheels, "cu13", "lib", "libcublas.so.13"), "13")
	changes("cuBLAS", true)
	write(filepath.Join(wheels, "cu13", "bin", "ptxas"), "13")
	changes("the assembler", true)
	write(filepath.Join(dir, "site-packages", "jax_plugins", "nvidia", "cudnn", "lib", "libcudnn_ops.so.9"), "9")
	changes("the other place beside the plugin", true)
	write(filepath.Join(dir, "own", "libcudnn.so.9"), "9")
	changes("a folder of $LD_LIBRARY_PATH", true)
	write(filepath.Join(dir, "own", "libother.so"), "1")
	changes("what is not NVIDIA's", false)
	if err := os.Chtimes(filepath.Join(dir, "own", "libcudnn.so.9"), time.Unix(2, 0), time.Unix(2, 0)); err != nil {
		t.Fatal(err)
	}
	changes("another of the same size", true)
	t.Setenv("NVIDIA_TF32_OVERRIDE", "1")
	changes("TF32", true)
}

// XLA_FLAGS may name a file: then what is in it decides.
func TestFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flags")
	if err := os.WriteFile(path, []byte("--xla_one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{path: "--xla_one", "--xla_two": "--xla_two", "": "", path + "-none": path + "-none"} {
		if got := flags(value); got != want {
			t.Errorf("flags(%q) = %q, want %q", value, got, want)
		}
	}
}
