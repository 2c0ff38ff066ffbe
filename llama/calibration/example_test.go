package calibration_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kvqbook/kvqbook/llama/calibration"
)

// What kvq calibrate writes beside a model, of one layer with one head of two elements here.
func ExampleWrite() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := calibration.Path(filepath.Join(dir, "model.gguf"))
	err = calibration.Write(path, &calibration.Queries{
		Model: "a model's identity", Layers: 1, KVHeads: 1, HeadDim: 2, Tokens: 100,
		Means: []float32{1, 0.5, 0.5, 2},
	})
	if err != nil {
		panic(err)
	}
	q, err := calibration.Read(path)
	fmt.Println(filepath.Base(path), q.Tokens, q.Means, err)
	// Output: model.gguf.kvq-queries 100 [1 0.5 0.5 2] <nil>
}
