package tokenizer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Llama-2 by hand: <s> is 1, "▁Hello" 15043, "," 29892, "▁world" 3186 (as transformers'
// documentation shows them).
func TestEncodeBatch(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"Hello", "Hello, world"}
	for _, c := range []struct {
		name      string
		padding   Padding
		bare      bool
		ids, mask [][]int32
	}{
		{"left by default", Padding{ID: id(2)}, false,
			[][]int32{{2, 2, 1, 15043}, {1, 15043, 29892, 3186}}, [][]int32{{0, 0, 1, 1}, {1, 1, 1, 1}}},
		{"right", Padding{Side: PadRight, ID: id(2)}, false,
			[][]int32{{1, 15043, 2, 2}, {1, 15043, 29892, 3186}}, [][]int32{{1, 1, 0, 0}, {1, 1, 1, 1}}},
		{"to a multiple", Padding{ID: id(0), ToMultipleOf: 3}, true,
			[][]int32{{0, 0, 15043}, {15043, 29892, 3186}}, [][]int32{{0, 0, 1}, {1, 1, 1}}},
		{"to a larger multiple", Padding{ID: id(2), ToMultipleOf: 5}, false,
			[][]int32{{2, 2, 2, 1, 15043}, {2, 1, 15043, 29892, 3186}}, [][]int32{{0, 0, 0, 1, 1}, {0, 1, 1, 1, 1}}},
	} {
		batch, err := tok.EncodeBatch(texts, c.padding)
		if c.bare {
			var rows [][]Token
			for _, text := range texts {
				rows = append(rows, tok.EncodeWith(text, EncodeOptions{WithoutSpecialTokens: true}))
			}
			batch, err = tok.Batch(rows, c.padding)
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.ids, batch.IDs); diff != "" {
			t.Errorf("%s: ids (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(c.mask, batch.Mask); diff != "" {
			t.Errorf("%s: mask (-want +got):\n%s", c.name, diff)
		}
	}
	for name, padding := range map[string]Padding{"side": {Side: "top", ID: id(2)}, "id": {ID: id(32000)}, "negative": {ID: id(-1)}, "multiple": {ToMultipleOf: -2}} {
		if _, err := tok.EncodeBatch(texts, padding); !usererr.Is(err) {
			t.Errorf("%s: error %v, want bad input", name, err)
		}
	}
	if _, err := tok.Batch([][]Token{{5}, {}}, Padding{ID: id(2)}); !usererr.Is(err) {
		t.Errorf("empty text: error %v, want bad input", err)
	}
	// With <s> before it, an empty text is one token: transformers generates from that too.
	if batch, err := tok.EncodeBatch([]string{""}, Padding{ID: id(2)}); err != nil || len(batch.IDs[0]) != 1 {
		t.Errorf("empty text with <s>: %v, %v", batch.IDs, err)
	}
}

func id(n Token) *Token { return &n }

// Without a padding token named, it is the files' own, else the end of sequence.
func TestDefaultPadding(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ pad, eos, want Token }{{-1, 2, 2}, {7, 2, 7}, {0, 2, 0}, {-1, -1, 0}} {
		tok.pad, tok.eos = c.pad, c.eos
		batch, err := tok.Batch([][]Token{{5}, {5, 6}}, Padding{})
		if err != nil || batch.IDs[0][0] != c.want {
			t.Errorf("pad %d and end of sequence %d: rows %v, %v; want padding %d", c.pad, c.eos, batch.IDs, err, c.want)
		}
		if got := batch.Row(0); len(got) != 1 || got[0] != 5 {
			t.Errorf("row 0 without padding is %v, want [5]", got)
		}
	}
	if got := (Batch{IDs: [][]Token{{3, 4}}}).Row(0); len(got) != 2 {
		t.Errorf("a row without mask is %v, want [3 4]", got)
	}
}
