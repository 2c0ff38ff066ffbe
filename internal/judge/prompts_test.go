package judge

import (
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/smallmodel"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Prompts are of one length that fits a cache with the text behind it, no two alike, the same at
// every call, and in the model's chat template.
func TestPromptsAreOfOneLength(t *testing.T) {
	_, tok := smallmodel.Open(t)
	list, err := Prompts(t.Context(), tok, 32)
	if err != nil || len(list) != 32 || len(list[0]) > 48 {
		t.Fatalf("%d prompts of %d tokens, %v; want 32 of at most 48", len(list), len(list[0]), err)
	}
	seen := map[string]bool{}
	for i, ids := range list {
		text := tok.Decode(ids, false)
		if len(ids) != len(list[0]) || seen[text] || !strings.Contains(text, "user\nWrite a long ") || !strings.HasSuffix(text, "assistant\n") {
			t.Errorf("prompt %d, %d tokens: %q", i, len(ids), text)
		}
		seen[text] = true
	}
	again, err := Prompts(t.Context(), tok, 5)
	if err != nil || !slices.EqualFunc(again, list[:5], slices.Equal[[]tokenizer.Token]) {
		t.Errorf("fewer prompts are not the first of more: %v", err)
	}
	if _, err := Prompts(t.Context(), tok, 1000); !usererr.Is(err) {
		t.Errorf("1,000 prompts gave %v", err)
	}
}
