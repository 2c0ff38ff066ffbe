package main

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// llama2Tokenizer is Llama-2's, from the test data of package tokenizer.
func llama2Tokenizer(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	packed, err := os.Open("../../tokenizer/testdata/llama2-tokenizer.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	text, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(text)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.FromFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// SentencePiece's decoder drops the blank of a text's first word. New tokens are not the first of a
// text: they go on after the prompt, and keep it.
func TestNewTextsKeepTheFirstBlank(t *testing.T) {
	tok := llama2Tokenizer(t)
	prompt, whole := tok.Encode("Hello"), tok.Encode("Hello world again")
	texts := startTexts(tok, &batch{Batch: tokenizer.Batch{IDs: [][]tokenizer.Token{prompt}}})
	for _, id := range whole[len(prompt):] {
		texts.add([][]tokenizer.Token{{id}})
	}
	texts.end()
	if got, want := texts.text(0), " world again"; got != want {
		t.Errorf("new text %q, want %q", got, want)
	}
}
