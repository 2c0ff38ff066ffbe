package main

import (
	"path/filepath"
	"testing"

	"github.com/kvqbook/kvqbook/internal/randomllama"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// The proof at full size, scaled down: Llama-2's layout in three shards of float16, its vocabulary,
// the tutorial's cache and the full-precision one. docs/llama2.md has the command for the full
// size.
func TestRandomLlama(t *testing.T) {
	testlane.Slow(t, "writes and runs a made-up Llama 2; TestGenerateJSON is the small generation")
	needsXLA(t)
	shape, err := randomllama.Llama2(32)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := randomllama.Write(dir, shape, 3, 1); err != nil {
		t.Fatal(err)
	}
	if err := randomllama.Tokenizer(dir, filepath.Join("..", "..", "tokenizer", "testdata", "llama2-tokenizer.json.gz")); err != nil {
		t.Fatal(err)
	}
	for _, cache := range []string{"full", "quantized"} {
		for _, dtype := range []string{"float16", "float32"} {
			j := parse[generateJSON](t, mustRun(t, "", "generate", "--model", dir, "--prompt", "Hello, how are you?", "--max-new-tokens", "80", "--min-new-tokens", "80",
				"--cache", cache, "--dtype", dtype, "--json"))
			if n := len(j.Prompts[0].OutputIDs); n != 80 {
				t.Errorf("%s, %s: %d tokens, want 80", cache, dtype, n)
			}
			size := int64(4)
			if dtype == "float16" {
				size = 2
			}
			var parameters int64 = 2*32000*128 + 4*128*128 + 3*344*128 + 3*128
			if m := j.Memory; m == nil || m.Weights != parameters*size || m.HostPeak < m.Weights || m.LoadRate <= 0 || m.DevicePeak != nil {
				t.Errorf("%s, %s: memory %+v, want %d bytes of weights, the peak of the process, and none of a device", cache, dtype, m, parameters*size)
			}
		}
	}
}
