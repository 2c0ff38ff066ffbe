package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A model is shown as its files have it, with a tokenizer and without one.
func TestShow(t *testing.T) {
	dir := tinyModel(t, nil)
	j := parse[shownJSON](t, mustRun(t, "", "show", dir, "--json"))
	if j.Architecture != "llama" || j.Layers == 0 || j.HeadDim != 8 || j.Context != tinyContext || len(j.Weights) == 0 || len(j.Caches) < 6 || j.NoTokenizer != "" {
		t.Errorf("%+v", j)
	}
	if full := j.Caches[0]; full.Bits != 16 || full.Bytes != float64(2*2*j.Layers*j.KVHeads*j.HeadDim) {
		t.Errorf("full precision: %+v", full)
	}
	out := mustRun(t, "", "show", dir)
	for _, want := range []string{"architecture   llama, ", "key/value heads, of 8", "context        512 tokens", "│ full precision │ 16 "} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, "", "show", "--model", dir); !strings.Contains(out, "; no tokenizer: ") {
		t.Errorf("without a tokenizer:\n%s", out)
	}
	if status, _, errs := runKVQ(t, "", "show", dir, "--model", dir); status != exitBadInput || !strings.Contains(errs, "want one or the other") {
		t.Errorf("status %d, %q", status, errs)
	}
}

// list and rm work on the cache folder that the hub's own tools use.
func TestListAndRemove(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	if out := mustRun(t, "", "list"); !strings.HasPrefix(out, "no models in ") {
		t.Errorf("%q", out)
	}
	blobs := filepath.Join(os.Getenv("HF_HUB_CACHE"), "models--org--name", "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, []byte("12345"), blobs, "abc.incomplete")
	if out := mustRun(t, "", "list"); !strings.Contains(out, "│ org/name │ 5 B  │ download cut off at 5 B │") {
		t.Errorf("%s", out)
	}
	if list := parse[[]storedJSON](t, mustRun(t, "", "ls", "--json")); len(list) != 1 || list[0] != (storedJSON{"org/name", 5, 5, false}) {
		t.Errorf("%+v", list)
	}
	for _, args := range [][]string{{"rm"}, {"rm", "a/b", "c/d"}, {"rm", "../x/y"}, {"rm", "org/other"}, {"rm", "org/name@main"}} {
		if status, _, errs := runKVQ(t, "", args...); status != exitBadInput {
			t.Errorf("%q: status %d, %q", args, status, errs)
		}
	}
	if out := mustRun(t, "", "rm", "org/name"); out != "removed org/name: 5 B\n" {
		t.Errorf("%q", out)
	}
	if left, _ := os.ReadDir(os.Getenv("HF_HUB_CACHE")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}
