package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

func TestPython(t *testing.T) {
	m := surroundings(t)
	ctx := context.Background()
	want(t, "none", m.python(ctx), Fails, "python3 is not on the PATH. Cure: sudo apt-get install python3")
	program(t, "python3", "echo 3.10.4")
	want(t, "an old one", m.python(ctx), Fails, "is Python 3.10.4, want 3.11 or newer")
	program(t, "python3", "echo 3.12.1 ensurepip")
	want(t, "one without venv", m.python(ctx), Fails, "lacks ensurepip. Cure: sudo apt-get install python3-venv")
	program(t, "python3", "echo 3.12.1")
	want(t, "one that could make the environment", m.python(ctx), Fails, "no virtual environment with JupyterLab yet. Cure: ./scripts/setup")
	venv := filepath.Join(m.Clone, asset.SetupDir, "venv", "bin", "python")
	put(t, venv, "#!/bin/sh\nexit 1\n", 0o755)
	want(t, "a broken environment", m.python(ctx), Fails, "does not run: exit status 1. Cure: rm -r "+filepath.Join(m.Clone, ".setup", "venv"))
	put(t, venv, "#!/bin/sh\necho 3.12.1 jupyterlab\n", 0o755)
	want(t, "half an environment", m.python(ctx), Fails, "without jupyterlab. Cure: ./scripts/setup")
	t.Setenv("PYTHONPATH", "/elsewhere")
	put(t, venv, "#!/bin/sh\n[ -z \"$PYTHONPATH\" ] && echo 3.12.1\n", 0o755)
	want(t, "a whole one", m.python(ctx), OK, "Python 3.12.1 with JupyterLab")
}

func TestKernel(t *testing.T) {
	m := surroundings(t)
	ctx := context.Background()
	want(t, "none", m.kernel(ctx), Fails, "no kernel yet")
	file := filepath.Join(m.Clone, asset.SetupDir, "venv", "share", "jupyter", "kernels", "gonb", "kernel.json")
	gonb := filepath.Join(m.Clone, "bin", "gonb")
	spec := func(root string) {
		put(t, file, fmt.Sprintf(`{"argv": [%q], "env": {"KVQ_ROOT": %q}}`, gonb, root), 0o644)
	}
	put(t, file, "{", 0o644)
	want(t, "half a file", m.kernel(ctx), Fails, "describes no kernel")
	spec(t.TempDir())
	want(t, "a clone that was moved", m.kernel(ctx), Fails, "this one is "+m.Clone)
	spec(m.Clone)
	want(t, "no program", m.kernel(ctx), Fails, gonb+" is not there")
	put(t, gonb, "#!/bin/sh\necho GoNB version: v9\n", 0o755)
	want(t, "no goimports", m.kernel(ctx), Fails, "goimports is not there")
	put(t, filepath.Join(m.Clone, "bin", "goimports"), "", 0o755)
	want(t, "all there", m.kernel(ctx), OK, "GoNB version: v9")
	host := filepath.Join(m.Clone, "bin", "kernelhost")
	put(t, file, fmt.Sprintf(`{"argv": [%q, %q], "env": {"KVQ_ROOT": %q}}`, host, gonb, m.Clone), 0o644)
	want(t, "no program that ends it", m.kernel(ctx), Fails, host+" is not there")
	put(t, host, "#!/bin/sh\nexit 1\n", 0o755)
	want(t, "with the program that ends it", m.kernel(ctx), OK, "GoNB version: v9")
	put(t, gonb, "no program", 0o755)
	want(t, "a damaged program", m.kernel(ctx), Fails, "does not run")
}

func TestModel(t *testing.T) {
	m := surroundings(t)
	ctx := context.Background()
	want(t, "none", m.model(ctx), Fails, "Cure: ./scripts/setup, or name another model with --model")
	t.Setenv(asset.EnvSmallModel, filepath.Join(m.Clone, "nothing.gguf"))
	want(t, "a variable that names nothing", m.model(ctx), Fails, asset.EnvSmallModel)
	whole := gguf(t)
	file := put(t, filepath.Join(m.Clone, "model.gguf"), whole, 0o644)
	t.Setenv(asset.EnvSmallModel, file)
	want(t, "a whole one", m.model(ctx), OK, file)
	put(t, file, whole[:len(whole)-100], 0o644)
	want(t, "a download that was cut off", m.model(ctx), Fails, "cut off")
}

// gguf is a whole model file.
func gguf(t *testing.T) string {
	t.Helper()
	config, err := modelfile.ParseConfig(fakemodel.JSON(t, fakemodel.Config()), nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []fakemodel.Tensor
	for _, w := range config.Weights() {
		list = append(list, fakemodel.Tensor{Name: w.GGUF, Dims: w.Dims})
	}
	return string(fakemodel.GGUF(t, fakemodel.Metadata(), fakemodel.Random(dtypes.Float32, list)))
}
