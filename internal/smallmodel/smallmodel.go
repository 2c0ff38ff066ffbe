// Package smallmodel opens the small model of the set-up for tests.
package smallmodel

import (
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Open opens its file and tokenizer; no weights are read. Without the model the test is skipped.
func Open(t testing.TB) (*llama.Files, *tokenizer.Tokenizer) {
	t.Helper()
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no model: %v", err)
	}
	files, err := llama.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := files.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	return files, tok
}
