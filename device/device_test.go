//go:build linux && cgo

package device

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/ptx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// cpuPlugin returns the path of the CPU plugin, or skips the test (fails it where XLA is required).
func cpuPlugin(t *testing.T) string {
	t.Helper()
	path, err := asset.CPUPlugin()
	if err == nil {
		return path
	}
	if os.Getenv("KVQ_REQUIRE_XLA") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// product runs one small matrix product, whose value is known.
func product(t *testing.T, backend compute.Backend) {
	t.Helper()
	exec, err := graph.NewExec(backend, func(x, y *graph.Node) *graph.Node { return graph.MatMul(x, y) })
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call([][]float32{{1, 2}, {3, 4}}, [][]float32{{5, 6}, {7, 8}})
	if err != nil {
		t.Fatal(err)
	}
	// [1 2; 3 4]·[5 6; 7 8] = [1·5+2·7 1·6+2·8; 3·5+4·7 3·6+4·8]
	want := tensors.FromValue([][]float32{{19, 22}, {43, 50}})
	if !want.Equal(out[0]) {
		t.Errorf("product is %s, want %s", out[0], want)
	}
}

// exact multiplies matrices whose products TF32, with its 10 bits of mantissa, would round: (1 +
// 2^-12)·1, summed 64 times.
func exact(t *testing.T, backend compute.Backend) {
	t.Helper()
	const n = 64
	exec, err := graph.NewExec(backend, func(x, y *graph.Node) *graph.Node { return graph.MatMul(x, y) })
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	out, err := exec.Call(tensors.FromScalarAndDimensions(float32(1+1./4096), n, n), tensors.FromScalarAndDimensions(float32(1), n, n))
	if err != nil {
		t.Fatal(err)
	}
	if want := tensors.FromScalarAndDimensions(float32(n+n/4096.), n, n); !want.Equal(out[0]) {
		t.Errorf("a product of float32 matrices is rounded: %v, want %v", out[0].Value().([][]float32)[0][0], n+n/4096.)
	}
}

func TestOpenCPU(t *testing.T) {
	path := cpuPlugin(t)
	for _, name := range []string{XLACPU, "xla:" + path} {
		backend, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		product(t, backend)
		exact(t, backend)
		info := Describe(backend)
		if info.Platform != "cpu" || info.Name != XLACPU || info.Plugin != path || info.GPU() || len(info.Devices) == 0 {
			t.Errorf("Describe(%s) = %+v", name, info)
		}
		if major, minor, ok := strings.Cut(info.Version, "."); !ok || major == "" || minor == "" {
			t.Errorf("Describe(%s).Version = %q, want major.minor", name, info.Version)
		}
		backend.Finalize()
	}
}

// Runs where there is a GPU and its plugin; both are needed to say anything about CUDA.
func TestOpenCUDA(t *testing.T) {
	if !HasNVIDIA() {
		t.Skip("this machine shows no NVIDIA GPU")
	}
	path, err := cudaPlugin()
	if err != nil {
		t.Skip(err)
	}
	backend, err := Open(XLACUDA)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	product(t, backend)
	exact(t, backend)
	info := Describe(backend)
	t.Logf("%s, plugin %s, XLA_FLAGS=%s, devices %q", info, info.Plugin, os.Getenv("XLA_FLAGS"), info.Devices)
	if !info.GPU() || info.Name != XLACUDA || info.Plugin != path || backend.(*xla.Backend).HasSharedBuffers() {
		t.Errorf("Describe = %+v", info)
	}
	if got := Default(); got != XLACUDA {
		t.Errorf("Default() = %q with a GPU and its plugin", got)
	}
	if warning := Warning([]Info{info}); warning != "" {
		t.Errorf("Warning = %q with a GPU", warning)
	}
}

func TestOpenPureGo(t *testing.T) {
	backend, err := Open(PureGo)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	product(t, backend)
	exact(t, backend)
	if info := Describe(backend); info.Name != PureGo || info.Platform != PureGo || info.Version != "" {
		t.Errorf("Describe = %+v", info)
	}
}

func TestOpenTwiceAtOnce(t *testing.T) {
	cpuPlugin(t)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			backend, err := Open(XLACPU)
			if err != nil {
				t.Error(err)
				return
			}
			backend.Finalize()
		})
	}
	wait.Wait()
}

// A plugin's path may hold anything: go-xla by itself would take the comma for options and "cuda"
// for the platform.
func TestPluginPathIsOnlyAPath(t *testing.T) {
	path := cpuPlugin(t)
	dir := filepath.Join(t.TempDir(), "my cuda, amd & nvidia tests")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "pjrt_c_api_cpu_plugin.so")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	backend, err := Open("xla:" + link)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	product(t, backend)
	exact(t, backend)
	if info := Describe(backend); info.Platform != "cpu" {
		t.Errorf("Describe = %+v, want platform cpu", info)
	}
}

func TestDefault(t *testing.T) {
	t.Setenv(EnvDefault, PureGo)
	if got := Default(); got != PureGo {
		t.Errorf("Default() = %q with %s=%s", got, EnvDefault, PureGo)
	}
	backend, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	if Describe(backend).Name != PureGo {
		t.Errorf(`Open("") is %v, want %q`, Describe(backend), PureGo)
	}
	t.Setenv(EnvDefault, "")
	if got := Default(); !HasNVIDIA() && got != XLACPU {
		t.Errorf("Default() = %q without a GPU, want %q", got, XLACPU)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	absent := filepath.Join(dir, "absent.so")
	text := file("text.so", strings.Repeat("this is no library\n", 10))
	empty := file("empty.so", "")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asset.EnvCUDAPlugin, absent)
	type test struct{ name, want string }
	tests := []test{
		{"cuda", `"xla:cuda"`},
		{"xla", `"xla:cpu"`},
		{"xla:", `"xla:cpu"`},
		{"xla:gpu", `"xla:cuda"`},
		{"XLA:CPU", `"xla:cpu"`},
		{"xla:" + absent, "nothing is there"},
		{"xla:" + text, "another kind of file"},
		{"xla:" + empty, "another kind of file"},
		{"xla:" + dir, "came something else"},
		{XLACUDA, asset.EnvCUDAPlugin},
	}
	if runtime.GOOS == "linux" {
		tests = append(tests, test{"xla:" + exe, "came ET_EXEC"})
	}
	if lib := someLibrary(); lib != "" {
		tests = append(tests, test{"xla:" + lib, "without GetPjrtApi"})
	}
	for _, test := range tests {
		backend, err := Open(test.name)
		if err == nil {
			backend.Finalize()
			t.Errorf("Open(%q) opened something", test.name)
			continue
		}
		if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Open(%q): %v; want one line with %q", test.name, err, test.want)
		}
	}
}

// someLibrary returns the path of a shared library that is no plugin, or "".
func someLibrary() string {
	for _, pattern := range []string{"/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib64/libm.so.6", "/usr/lib/libm.so.6"} {
		if isRegular(pattern) {
			return pattern
		}
	}
	return ""
}

// A download that broke off: the system's loader would take the process down with it.
func TestCutOffPlugin(t *testing.T) {
	path := cpuPlugin(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []float64{0.0001, 0.5, 0.999} {
		short := filepath.Join(t.TempDir(), "pjrt_c_api_cpu_plugin.so")
		if err := os.WriteFile(short, data[:int(float64(len(data))*part)], 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open("xla:" + short); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%g of the file: %v; want an error that says it was cut off", part, err)
		}
	}
}

// fakeInstaller stands for go-xla's, which downloads plugins.
type fakeInstaller struct{ calls int }

func (f *fakeInstaller) AutoInstall() error             { f.calls++; return nil }
func (f *fakeInstaller) AutoInstallPlugin(string) error { f.calls++; return nil }

// Nothing is ever fetched, even where another package of the program links go-xla's installer and
// the environment does not forbid it. The environment is read when the process starts, so this runs
// in a process of its own.
func TestNoAutoInstall(t *testing.T) {
	const inChild = "KVQ_TEST_NO_AUTO_INSTALL"
	if os.Getenv(inChild) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestNoAutoInstall$", "-test.v")
		for _, env := range os.Environ() {
			if !strings.HasPrefix(env, xla.NoAutoInstallEnv+"=") {
				child.Env = append(child.Env, env)
			}
		}
		// An empty folder, so that nothing of this machine is loaded.
		child.Env = append(child.Env, inChild+"=1", "PJRT_PLUGIN_LIBRARY_PATH="+t.TempDir())
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	fake := &fakeInstaller{}
	xla.RegisterAutoInstaller(fake)
	if _, err := xla.New("no-such-plugin"); err == nil {
		t.Error("xla.New opened a plugin that does not exist")
	}
	if fake.calls != 0 {
		t.Errorf("go-xla's installer ran %d times", fake.calls)
	}
	if os.Getenv(xla.NoAutoInstallEnv) == "" {
		t.Errorf("%s is not set for the processes started from here", xla.NoAutoInstallEnv)
	}
}

func TestMissingPluginIsErrNotFound(t *testing.T) {
	t.Setenv(asset.EnvCPUPlugin, filepath.Join(t.TempDir(), "absent.so"))
	if _, err := Open(XLACPU); !errors.Is(err, asset.ErrNotFound) {
		t.Errorf("Open: %v, want asset.ErrNotFound in its chain", err)
	}
	info := Inspect(XLACPU)
	if info.Err == nil || info.GPU() || info.String() != info.Err.Error() {
		t.Errorf("Inspect = %+v", info)
	}
}

func TestListNamesEveryDevice(t *testing.T) {
	infos := List()
	if len(infos) != 3 || infos[0].Name != XLACPU || infos[1].Name != XLACUDA || infos[2].Name != PureGo {
		t.Fatalf("List() = %v", infos)
	}
	for _, info := range infos {
		if line := info.String(); strings.Contains(line, "\n") || line == "" {
			t.Errorf("%q is not one line", line)
		}
	}
	if infos[2].Err != nil {
		t.Error(infos[2].Err)
	}
}

func TestWarning(t *testing.T) {
	cpu := Info{Name: XLACPU, Platform: "cpu"}
	broken := Info{Name: XLACUDA, Platform: "cuda", Err: errors.New("no device")}
	gpu := Info{Name: XLACUDA, Platform: "cuda"}
	if got := Warning([]Info{cpu, broken}); got != NoGPUWarning {
		t.Errorf("without a GPU: %q", got)
	}
	if got := Warning([]Info{cpu, gpu}); got != "" {
		t.Errorf("with a GPU: %q", got)
	}
}

func TestFlags(t *testing.T) {
	const flag = "--xla_gpu_cuda_data_dir"
	for _, test := range []struct{ flags, dir, want string }{
		{"", "", ""},
		{"", "/usr/local/cuda", "--xla_gpu_cuda_data_dir=/usr/local/cuda"},
		{"", "/a clone/cu13", `--xla_gpu_cuda_data_dir="/a clone/cu13"`},
		{"--xla_dump_to=/x", "/c", "--xla_dump_to=/x --xla_gpu_cuda_data_dir=/c"},
		{"--xla_gpu_cuda_data_dir=/mine", "/c", "--xla_gpu_cuda_data_dir=/mine"},
		{"/a/file/of/flags", "/c", "/a/file/of/flags"},
	} {
		if got := withFlag(test.flags, flag, test.dir); got != test.want {
			t.Errorf("withFlag(%q, %q) = %q, want %q", test.flags, test.dir, got, test.want)
		}
	}
}

// The plugin that is told apart by its size is the one that set-up brings.
func TestPluginOfSetUp(t *testing.T) {
	assets, err := os.ReadFile("../scripts/assets.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(assets)) {
		if f := strings.Fields(line); len(f) == 8 && f[0] == "cuda" && f[4] == jaxCUDAPlugin {
			if f[6] != strconv.Itoa(pluginOfSetUp) {
				t.Errorf("the plugin has %s bytes, pluginOfSetUp is %d: does the new one know the flag of sideBySide?", f[6], pluginOfSetUp)
			}
			return
		}
	}
	t.Error("no CUDA plugin among the assets")
}

// Programs with a kernel have kernels side by side, with the set-up's plugin, unless the user has
// said otherwise.
func TestSideBySide(t *testing.T) {
	at := func(size int64) plugin {
		path := filepath.Join(t.TempDir(), "plugin.so")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
		return plugin{path: path, platform: "cuda"}
	}
	for _, test := range []struct {
		size  int64
		flags string
		want  bool
	}{
		{pluginOfSetUp, "", true},
		{pluginOfSetUp, "--xla_gpu_cuda_data_dir=/x", true},
		{pluginOfSetUp, "--xla_gpu_command_buffer_scheduling_mode=SERIALIZE", false},
		{pluginOfSetUp, "/a/file/of/flags", false},
		{pluginOfSetUp + 1, "", false},
	} {
		t.Setenv("XLA_FLAGS", test.flags)
		o := sideBySide(at(test.size))
		if (o != nil) != test.want {
			t.Errorf("%+v: %+v", test, o)
		}
		if o != nil && (o.For([]byte("dot")) || !o.For([]byte("x "+ttir.Target+" y")) || !o.For([]byte(ptx.Target))) {
			t.Error("want it for programs with a kernel, and for no others")
		}
	}
}

// The plugin of a Python with JAX's CUDA packages is found through the environment of that Python.
func TestCUDAPluginOfAPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Log("no python3 here: only VIRTUAL_ENV is tested")
	}
	clone := t.TempDir() // a clone without the plugin
	if err := os.WriteFile(filepath.Join(clone, "go.mod"), []byte("module "+asset.Module+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(asset.EnvRoot, clone)
	t.Setenv(asset.EnvCUDAPlugin, "")
	venv := filepath.Join(t.TempDir(), "a [venv]")
	want := filepath.Join(venv, "lib", "python3.12", "site-packages", jaxCUDAPlugin)
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VIRTUAL_ENV", venv)
	if got, err := cudaPlugin(); err != nil || got != want {
		t.Errorf("cudaPlugin() = %q, %v; want %q", got, err, want)
	}
}

// XLA's CPU client keeps no figures: its own answer shows that the call reaches it, and the
// machine's memory counts.
func TestMemoryOfCPU(t *testing.T) {
	cpuPlugin(t)
	backend, err := Open(XLACPU)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	if a, err := allocatorOf(backend, 0); err == nil || strings.Contains(err.Error(), "not found") || strings.Contains(err.Error(), "no such call") {
		t.Errorf("%+v, %v, want XLA's own answer that it has no figures", a, err)
	} else {
		t.Logf("XLA: %v", err)
	}
	m := MemoryOf(backend, 0)
	if m.Limit <= m.InUse || m.InUse == 0 || m.Peak < m.InUse || m.Source == "" {
		t.Errorf("%+v, want the machine's memory", m)
	}
	if procField("/proc/self/status", "VmHWM") < m.Peak {
		t.Errorf("the peak fell from %d to %d", m.Peak, procField("/proc/self/status", "VmHWM"))
	}
}
