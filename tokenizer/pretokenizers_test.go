package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/go-huggingface/models/gguf"
)

// Every kind of pre-tokenizer cuts as Hugging Face's tokenizers does with the same patterns
// (scripts/make-pretokenizer-goldens.py).
func TestGGUFPreTokenizers(t *testing.T) {
	var golden struct {
		Texts []string
		Words map[string][][]string
	}
	if err := json.Unmarshal(testdata(t, "pretokenizers.json.gz"), &golden); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for name, words := range golden.Words {
		kind, known := ggufPreTokenizers[name]
		if !known {
			t.Errorf("%q is not known", name)
			continue
		}
		seen[strings.Join(kind.patterns, "\n")] = true
		cut, err := kind.preTokenizer()
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		for i, text := range golden.Texts {
			var want []string
			for _, word := range words[i] {
				want = append(want, toByteCharacters(word))
			}
			if got := cut([]string{text}, true); !slices.Equal(slices.DeleteFunc(got, func(w string) bool { return w == "" }), want) {
				t.Errorf("%s: %q\n got %q\nwant %q", name, text, got, want)
			}
		}
	}
	for name, kind := range ggufPreTokenizers {
		if !seen[strings.Join(kind.patterns, "\n")] {
			t.Errorf("no golden for the patterns of %q", name)
		}
	}
}

// A file's pre-tokenizer by its name, and by llama.cpp's default where it has none; names that
// nobody knows are refused.
func TestGGUFPreTokenizerNames(t *testing.T) {
	open := func(t *testing.T, change map[string]any) (*Tokenizer, error) {
		metadata := map[string]any{
			"tokenizer.ggml.model":  "gpt2",
			"tokenizer.ggml.tokens": []string{"a", "b", "ab", "<s>", "1", "2", "12", "B", "aB", "", ""},
			"tokenizer.ggml.merges": []string{"a b", "1 2", "a B"}, "tokenizer.ggml.token_type": []int32{1, 1, 1, 3, 1, 1, 1, 1, 1, 5, 5},
			"tokenizer.ggml.bos_token_id": uint32(3),
		}
		for name, value := range change {
			metadata[name] = value
		}
		dir := t.TempDir()
		write(t, dir, "m.gguf", ggufBytes(t, metadata))
		file, err := gguf.Open(dir + "/m.gguf")
		if err != nil {
			t.Fatal(err)
		}
		return FromGGUF(file)
	}
	for name, want := range map[string][]Token{
		"llama-bpe": {3, 2, 6, 8}, "tekken": {3, 2, 4, 5, 0, 7}, "default": {2, 6, 8}, "smollm": {2, 4, 5, 8}, "gpt-2": {2, 6, 8},
	} {
		tok, err := open(t, map[string]any{"tokenizer.ggml.pre": name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := tok.Encode("ab12aB")
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if tok, err := open(t, nil); err != nil {
		t.Error(err)
	} else if got := tok.Encode("ab"); !slices.Equal(got, []Token{2}) {
		t.Errorf("no name: %v", got)
	}
	// An end of turn that its converter took for plain text is a special token all the same.
	tok, err := open(t, map[string]any{"tokenizer.ggml.tokens": []string{"a", "b", "ab", "<s>", "1", "2", "12", "B", "aB", "<|eot_id|>", ""},
		"tokenizer.ggml.token_type": []int32{1, 1, 1, 3, 1, 1, 1, 1, 1, 1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a<|eot_id|>b"); !slices.Equal(got, []Token{0, 9, 1}) || !tok.IsSpecial(9) {
		t.Errorf("end of turn: %v, special %v", got, tok.IsSpecial(9))
	}
	_, err = open(t, map[string]any{"tokenizer.ggml.pre": "nobody's"})
	refused(t, err, `tokenizer.ggml.pre = "nobody's"`)
}
