package tokenizer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// A tokenizer for "ab": bytes as characters, one merge, one special token.
const tiny = `{
	"added_tokens": [{"id": 4, "content": "</s>", "special": true}],
	"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
	"decoder": {"type": "ByteLevel"},
	"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}
}`

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(tiny), 0o600); err != nil {
		panic(err)
	}
	t, err := tokenizer.FromFolder(dir)
	if err != nil {
		panic(err)
	}
	batch, err := t.EncodeBatch([]string{"ab", "a ba"}, tokenizer.Padding{ID: new(tokenizer.Token(4))})
	if err != nil {
		panic(err)
	}
	fmt.Println(batch.IDs, batch.Mask)
	fmt.Println(t.BatchDecode([][]tokenizer.Token{{2, 3, 2, 4}}, true))
	// Output:
	// [[4 4 4 2] [0 3 1 0]] [[0 0 0 1] [1 1 1 1]]
	// [ab ab]
}

// Tokens come one at a time; a character that takes several of them comes when it is complete.
func ExampleTokenizer_Stream() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// The three bytes of "€" are a token each.
	euro := strings.NewReplacer(`"Ġ": 3`, `"Ġ": 3, "â": 5, "Ĥ": 6, "¬": 7`).Replace(tiny)
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(euro), 0o600); err != nil {
		panic(err)
	}
	t, err := tokenizer.FromFolder(dir)
	if err != nil {
		panic(err)
	}
	text := t.Stream(true)
	for _, id := range t.Encode("ab €") {
		fmt.Printf("%q ", text.Push(id))
	}
	// Output:
	// "ab" " " "" "" "€"
}
