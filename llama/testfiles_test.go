package llama

import (
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

type fakeTensor = fakemodel.Tensor

var (
	fakeConfig       = fakemodel.Config
	fakeMetadata     = fakemodel.Metadata
	fakeFolder       = fakemodel.Folder
	with             = fakemodel.With
	absent           = fakemodel.Absent
	mustJSON         = fakemodel.JSON
	writeFile        = fakemodel.WriteFile
	safetensorsBytes = fakemodel.Safetensors
	ggufBytes        = fakemodel.GGUF
	wantLine         = fakemodel.WantLine
)

// smallModel is the path of the set-up's GGUF file; the test is skipped where it is not.
func smallModel(t testing.TB) string {
	t.Helper()
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	return path
}

// fakeTensors are random tensors for a configuration, by the names of Hugging Face or of GGUF.
func fakeTensors(t testing.TB, config map[string]any, dtype dtypes.DType, ggufNames bool) []fakeTensor {
	t.Helper()
	c, err := modelfile.ParseConfig(mustJSON(t, config), nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []fakeTensor
	for _, w := range c.Weights() {
		f := fakeTensor{Name: w.HF, Dims: w.Dims}
		if ggufNames {
			f.Name = w.GGUF
		}
		list = append(list, f)
	}
	return fakemodel.Random(dtype, list)
}
