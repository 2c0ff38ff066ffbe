package randomllama

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
)

// The exact layout of the real model: its number of parameters, and the names, shapes and shards that llama.Open checks.
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
	files, err := llama.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := files.LoadWeights(nil, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Finalize()
	values, err := tensors.CopyFlatData[float32](w.Layers[0].Gate)
	if err != nil {
		t.Fatal(err)
	}
	var sum, square float64
	for _, x := range values {
		sum, square = sum+float64(x), square+float64(x)*float64(x)
	}
	n := float64(len(values))
	if mean, deviation := sum/n, math.Sqrt(square/n); math.Abs(mean) > 5e-4 || math.Abs(deviation-0.02) > 5e-4 {
		t.Errorf("mean %g, deviation %g, want 0 and 0.02", mean, deviation)
	}
	if ones, err := tensors.CopyFlatData[float32](w.Norm); err != nil || ones[0] != 1 {
		t.Errorf("norm begins with %v (%v), want ones", ones[:1], err)
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
