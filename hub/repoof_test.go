package hub

import (
	"path/filepath"
	"testing"
)

// A snapshot's folder says whose it is, as List says of the folder above.
func TestRepoOf(t *testing.T) {
	commit := "0123456789012345678901234567890123456789"
	for _, repo := range []string{"org/name", "gpt2", "org/a-name.with_signs"} {
		path := newCache("/cache", repo).snapshot(commit)
		if got, ok := RepoOf(path); !ok || got != repo {
			t.Errorf("%s: %q, %t, want %q", path, got, ok, repo)
		}
	}
	for _, path := range []string{"", "/", "model.gguf", "/models--org--name", "/cache/models--org--name/blobs/" + commit,
		"/cache/datasets--org--name/snapshots/" + commit, filepath.Join(newCache("/cache", "org/name").snapshot(commit), "model.gguf")} {
		if got, ok := RepoOf(path); ok {
			t.Errorf("%q is said to be of %q", path, got)
		}
	}
}
