package main

import (
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// The command needs no plugin: on GoMLX's pure-Go backend it makes the tokens that it makes on XLA,
// with a cache in codes.
func TestGenerateOnPureGo(t *testing.T) {
	model := tinyModel(t, nil)
	made := func(backend string) generateJSON {
		return parse[generateJSON](t, mustRun(t, "", "generate", "--backend", backend, "--model", model, "--prompt", tinyText(7, 8, 9), "--prompt", tinyText(20),
			"--q-group-size", "8", "--residual-length", "4", "--nbits", "8", "--max-new-tokens", "12", "--min-new-tokens", "12", "--json"))
	}
	j := made("go:ops_sequential")
	if len(j.Prompts) != 2 || len(j.Prompts[0].OutputIDs) != 12 || len(j.Prompts[1].OutputIDs) != 12 {
		t.Errorf("%+v, want 12 tokens of two rows", j.Prompts)
	}
	if j.Device != "go" || j.Cache.Parts.Codes == 0 {
		t.Errorf("device %q, cache %+v, want the pure-Go backend and codes", j.Device, j.Cache)
	}
	t.Run("as on XLA", func(t *testing.T) {
		testlane.OnlyAll(t, "compiles a model; TestPureGo of llama compares tokens with transformers'")
		needsXLA(t)
		on := made("xla:cpu")
		for i, p := range j.Prompts {
			if len(p.OutputIDs) != 12 || !slices.Equal(p.OutputIDs, on.Prompts[i].OutputIDs) {
				t.Errorf("row %d: %v, on XLA %v", i, p.OutputIDs, on.Prompts[i].OutputIDs)
			}
		}
	})
}
