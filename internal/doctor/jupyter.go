package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// oldestPython is the oldest one that the pinned packages of the notebooks take.
const oldestPython = "3.11"

// askPython prints a Python's version and what is missing of two modules.
const askPython = `import importlib.util as u, sys
print(sys.version.split()[0], *[m for m in sys.argv[1:] if u.find_spec(m) is None])`

// pythonEnvironment is this process's, without what leads Python to packages of other places, as in
// scripts/env.sh.
func pythonEnvironment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PYTHONHOME=") || strings.HasPrefix(v, "PYTHONPATH=")
	})
	return append(env, "PYTHONNOUSERSITE=1")
}

// ask asks a Python for its version and for what it lacks of the modules.
func ask(ctx context.Context, python string, modules ...string) (version string, lacks []string, err error) {
	c := exec.CommandContext(ctx, python, append([]string{"-c", askPython}, modules...)...)
	c.Env = pythonEnvironment()
	out, err := c.Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) == 0 {
		return "", nil, cmp.Or(err, error(exec.ErrNotFound))
	}
	return words[0], words[1:], nil
}

var pythonVersion = regexp.MustCompile(`^(\d+)\.(\d+)`)

// python looks at the virtual environment of the clone, or at what would make one.
func (m *Machine) python(ctx context.Context) Finding {
	if m.Clone == "" {
		return noClone("virtual environment")
	}
	venv := filepath.Join(m.Clone, asset.SetupDir, "venv", "bin", "python")
	if _, err := os.Stat(venv); err == nil {
		version, lacks, err := ask(ctx, venv, "jupyterlab", "nbformat")
		switch {
		case err != nil:
			return ill("rm -r "+filepath.Dir(filepath.Dir(venv))+", then "+setup, "%s does not run: %v", venv, err)
		case len(lacks) > 0:
			return ill(setup, "%s, Python %s, without %s", venv, version, strings.Join(lacks, " and "))
		}
		return well("%s, Python %s with JupyterLab", venv, version)
	}
	system := cmp.Or(os.Getenv("PYTHON"), "python3")
	const install = "sudo apt-get install python3 python3-venv, or set PYTHON to a Python " + oldestPython + " or newer"
	path, err := exec.LookPath(system)
	if err != nil {
		return ill(install, "no virtual environment yet, and %s is not on the PATH", system)
	}
	version, lacks, err := ask(ctx, path, "venv", "ensurepip")
	if err != nil {
		return ill(install, "no virtual environment yet, and %s does not run: %v", path, err)
	}
	if n := pythonVersion.FindStringSubmatch(version); n == nil || !atLeast(n[1], n[2], oldestPython) {
		return ill(install, "no virtual environment yet, and %s is Python %s, want %s or newer", path, version, oldestPython)
	}
	if len(lacks) > 0 {
		return ill("sudo apt-get install python3-venv", "no virtual environment yet, and %s, Python %s, lacks %s", path, version, strings.Join(lacks, " and "))
	}
	return ill(setup, "%s, Python %s; no virtual environment with JupyterLab yet", path, version)
}

// kernel looks at the kernel's description, and starts the program that it names.
func (m *Machine) kernel(ctx context.Context) Finding {
	if m.Clone == "" {
		return noClone("kernel")
	}
	file := filepath.Join(m.Clone, asset.SetupDir, "venv", "share", "jupyter", "kernels", "gonb", "kernel.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return ill(setup, "no kernel yet: %v", err)
	}
	var spec struct {
		Argv []string          `json:"argv"`
		Env  map[string]string `json:"env"`
	}
	if err := json.Unmarshal(data, &spec); err != nil || len(spec.Argv) == 0 {
		return ill(setup, "%s describes no kernel (%v)", file, err)
	}
	if root := spec.Env[asset.EnvRoot]; !sameFile(root, m.Clone) {
		return ill(setup+" here, which writes the new paths", "%s is for the clone %s, this one is %s", file, root, m.Clone)
	}
	gonb := spec.Argv[0]
	if filepath.Base(gonb) == "kernelhost" && len(spec.Argv) > 1 {
		gonb = spec.Argv[1] // which the first one runs
	}
	for _, program := range []string{spec.Argv[0], gonb, filepath.Join(filepath.Dir(gonb), "goimports")} {
		if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
			return ill(setup, "%s is not there, or no program", program)
		}
	}
	out, err := exec.CommandContext(ctx, gonb, "--version").CombinedOutput()
	if err != nil {
		return ill("rm "+gonb+", then "+setup, "%s does not run: %v", gonb, err)
	}
	return well("%s, %s", gonb, cmp.Or(firstLine(string(out)), "of unknown version"))
}

// sameFile tells whether two paths are one file or folder.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
