package tokenizer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Llama-2 by hand: <s> is 1, "▁Hello" 15043, "," 29892, "▁world" 3186 (as transformers' documentation shows them).
func TestEncodeBatch(t *testing.T) {
	tok, err := parseJSON(llama2JSON(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"Hello", "Hello, world"}
	for _, c := range []struct {
		name      string
		padding   Padding
		options   []Option
		ids, mask [][]int32
	}{
		{"left by default", Padding{ID: 2}, nil,
			[][]int32{{2, 2, 1, 15043}, {1, 15043, 29892, 3186}}, [][]int32{{0, 0, 1, 1}, {1, 1, 1, 1}}},
		{"right", Padding{Side: PadRight, ID: 2}, nil,
			[][]int32{{1, 15043, 2, 2}, {1, 15043, 29892, 3186}}, [][]int32{{1, 1, 0, 0}, {1, 1, 1, 1}}},
		{"to a multiple", Padding{ID: 0, ToMultipleOf: 3}, []Option{WithoutSpecialTokens},
			[][]int32{{0, 0, 15043}, {15043, 29892, 3186}}, [][]int32{{0, 0, 1}, {1, 1, 1}}},
		{"to a larger multiple", Padding{ID: 2, ToMultipleOf: 5}, nil,
			[][]int32{{2, 2, 2, 1, 15043}, {2, 1, 15043, 29892, 3186}}, [][]int32{{0, 0, 0, 1, 1}, {0, 1, 1, 1, 1}}},
	} {
		ids, mask, err := tok.EncodeBatch(texts, c.padding, c.options...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.ids, ids); diff != "" {
			t.Errorf("%s: ids (-want +got):\n%s", c.name, diff)
		}
		if diff := cmp.Diff(c.mask, mask); diff != "" {
			t.Errorf("%s: mask (-want +got):\n%s", c.name, diff)
		}
	}
	for name, padding := range map[string]Padding{"side": {Side: "top", ID: 2}, "id": {ID: 32000}, "negative": {ID: -1}, "multiple": {ToMultipleOf: -2}} {
		if _, _, err := tok.EncodeBatch(texts, padding); !usererr.Is(err) {
			t.Errorf("%s: error %v, want bad input", name, err)
		}
	}
	if _, _, err := tok.EncodeBatch([]string{"x", ""}, Padding{ID: 2}, WithoutSpecialTokens); !usererr.Is(err) {
		t.Errorf("empty text: error %v, want bad input", err)
	}
	// With <s> before it, an empty text is one token: transformers generates from that too.
	if ids, _, err := tok.EncodeBatch([]string{""}, Padding{ID: 2}); err != nil || len(ids[0]) != 1 {
		t.Errorf("empty text with <s>: %v, %v", ids, err)
	}
}
