package randomllama

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// The exact layout of the real model: its number of parameters, and the names, shapes and shards
// that modelfile.Open checks.
func TestWrite(t *testing.T) {
	full, err := Llama2(1)
	if err != nil {
		t.Fatal(err)
	}
	var parameters int64
	for _, x := range full.tensors() {
		parameters += x.bytes() / 2
	}
	if parameters != 6738415616 {
		t.Errorf("%d parameters, Llama-2-7B has 6738415616", parameters)
	}

	shape, err := Llama2(32)
	if err != nil {
		t.Fatal(err)
	}
	shape.Vocabulary = 2000
	dir := t.TempDir()
	if err := Write(dir, shape, 3, 7); err != nil {
		t.Fatal(err)
	}
	files, err := modelfile.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []float32 {
		for _, w := range files.Config().Weights() {
			if w.HF == name {
				values := make([]float32, w.Elements())
				if err := files.Read(t.Context(), w, modelfile.As{DType: dtypes.Float32}, dtypes.UnsafeByteSliceFromAny(values)); err != nil {
					t.Fatal(err)
				}
				return values
			}
		}
		t.Fatalf("no weight %s", name)
		return nil
	}
	values := read("model.layers.0.mlp.gate_proj.weight")
	var sum, square float64
	for _, x := range values {
		sum, square = sum+float64(x), square+float64(x)*float64(x)
	}
	n := float64(len(values))
	if mean, deviation := sum/n, math.Sqrt(square/n); math.Abs(mean) > 5e-4 || math.Abs(deviation-0.02) > 5e-4 {
		t.Errorf("mean %g, deviation %g, want 0 and 0.02", mean, deviation)
	}
	if ones := read("model.norm.weight"); ones[0] != 1 {
		t.Errorf("norm begins with %v, want ones", ones[:1])
	}

	again := t.TempDir()
	if err := Write(again, shape, 3, 7); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{shardName(0, 3), shardName(1, 3), shardName(2, 3), "config.json", "model.safetensors.index.json"} {
		a, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(again, name)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from one run to the next (%v)", name, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	if _, err := Llama2(3); !usererr.Is(err) {
		t.Errorf("a scale of 3: %v", err)
	}
	shape, _ := Llama2(32)
	for _, shards := range []int{0, 100} {
		if err := Write(t.TempDir(), shape, shards, 1); !usererr.Is(err) {
			t.Errorf("%d shards: %v", shards, err)
		}
	}
	if err := Tokenizer(t.TempDir(), filepath.Join(t.TempDir(), "none")); !usererr.Is(err) {
		t.Errorf("no tokenizer: %v", err)
	}
}
