package device

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// jaxCUDAPlugin is where the wheel jax-cuda13-pjrt puts its plugin, below a Python's site-packages.
const jaxCUDAPlugin = "jax_plugins/xla_cuda13/xla_cuda_plugin.so"

// HasNVIDIA reports whether the machine shows an NVIDIA GPU: the driver's device files, or WSL's.
func HasNVIDIA() bool {
	for _, pattern := range []string{"/dev/nvidia[0-9]*", "/dev/dxg"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// cudaPlugin finds the CUDA plugin: $KVQ_PLUGIN_CUDA, the set-up's, else one in the site-packages
// of the Python that is active.
func cudaPlugin() (string, error) {
	path, err := asset.CUDAPlugin()
	if err == nil || !errors.Is(err, asset.ErrNotFound) || os.Getenv(asset.EnvCUDAPlugin) != "" {
		return path, err
	}
	for _, dir := range sitePackages() {
		if path := filepath.Join(dir, jaxCUDAPlugin); isRegular(path) {
			return path, nil
		}
	}
	return "", err
}

// sitePackages lists the folders in which the active Python (a virtual environment's, Conda's, else
// the first on the PATH) looks for packages. It is empty where there is no Python.
func sitePackages() []string {
	var dirs []string
	for _, env := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		if prefix := os.Getenv(env); prefix != "" {
			if found, err := filepath.Glob(filepath.Join(escapeGlob(prefix), "lib", "python3*", "site-packages")); err == nil {
				dirs = append(dirs, found...)
			}
		}
	}
	if out, err := exec.Command("python3", "-c", `import sys; print("\n".join(sys.path))`).Output(); err == nil {
		for dir := range strings.Lines(string(out)) {
			if dir = strings.TrimSpace(dir); filepath.IsAbs(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// escapeGlob makes filepath.Glob take path literally.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// prepareCUDA tells XLA where CUDA's own files are (libdevice, ptxas), which it does not find by
// itself, and NVIDIA's libraries how exact float32 is. Variables that the user has set are kept.
func prepareCUDA(plugin string) {
	// go-xla looks for NVIDIA's folders in one place only and warns at length where they are
	// elsewhere. The name has been spelt both ways. Open tells XLA not to multiply float32 with 10
	// bits of mantissa (TF32); this tells NVIDIA's libraries.
	for _, env := range []string{"GOPJRT_CUDA_CHECKS", "GOPJR_CUDA_CHECKS", "NVIDIA_TF32_OVERRIDE"} {
		if _, set := os.LookupEnv(env); !set {
			os.Setenv(env, "0")
		}
	}
	flags := os.Getenv("XLA_FLAGS")
	if all := withFlag(flags, "--xla_gpu_cuda_data_dir", cudaData(plugin)); all != flags {
		os.Setenv("XLA_FLAGS", all)
	}
}

// withFlag adds a flag to the value of XLA_FLAGS, unless it is there, the flag is to have no value,
// or what is there are not flags but the name of a file of flags.
func withFlag(flags, flag, value string) string {
	if value == "" || mayHaveFlag(flags, flag) {
		return flags
	}
	// XLA splits the value at spaces, except in quotes.
	if strings.ContainsAny(value, " \t'") {
		value = `"` + value + `"`
	}
	return strings.TrimSpace(strings.TrimSpace(flags) + " " + flag + "=" + value)
}

// mayHaveFlag reports whether the value of XLA_FLAGS has a flag, or is the name of a file of flags.
func mayHaveFlag(flags, flag string) bool {
	given := strings.TrimSpace(flags)
	return strings.Contains(given, flag) || given != "" && !strings.HasPrefix(given, "-")
}

// cudaData finds the folder of CUDA's own files: NVIDIA's wheels near the plugin (its own search
// path looks in these two places too), $CUDA_HOME, or /usr/local/cuda. It returns "" where there is
// none.
func cudaData(plugin string) string {
	near := filepath.Dir(plugin)
	for _, dir := range []string{
		filepath.Join(near, "../../nvidia/cu13"),
		filepath.Join(near, "../nvidia/cu13"),
		os.Getenv("CUDA_HOME"),
		"/usr/local/cuda",
	} {
		if filepath.IsAbs(dir) && isFolder(filepath.Join(dir, "nvvm", "libdevice")) {
			return dir
		}
	}
	return ""
}
