package tokenizer

import (
	"slices"
	"testing"

	"github.com/gomlx/go-huggingface/hub"
	"github.com/gomlx/go-huggingface/tokenizers"
)

// Why this package does not build on go-huggingface v0.4.11's tokenizers. Each case is a text on
// which they differ from Hugging Face's own implementation; the other tests show that this package
// does not. When one fails, upstream was repaired: see whether its tokenizers can take over.
func TestUpstreamFaults(t *testing.T) {
	const config = `{"tokenizer_class": "PreTrainedTokenizerFast"}`
	open := func(t *testing.T, name string, data []byte, class string) tokenizers.Tokenizer {
		t.Helper()
		dir := t.TempDir()
		write(t, dir, name, data)
		write(t, dir, settingsFile, []byte(class))
		tok, err := tokenizers.New(hub.NewLocal(dir))
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	differs := func(t *testing.T, tok tokenizers.Tokenizer, text string, want []Token, why string) {
		t.Helper()
		if got := tok.Encode(text); slices.EqualFunc(got, want, func(a int, b Token) bool { return a == int(b) }) {
			t.Errorf("upstream gives %v for %q too: the fault is gone (%s)", got, text, why)
		}
	}
	t.Run("byte level", func(t *testing.T) {
		ours := smallModel(t)
		theirs := open(t, jsonFile, smollm2JSON(t), config)
		for text, why := range map[string]string{
			"How are you":    "unknown pre-tokenizer Digits: it splits at blanks and drops them",
			"year 2024":      "digits are not cut one by one",
			"a  b":           "ByteLevel lacks GPT-2's rule that a run of blanks leaves the last one to the word",
			"line\n\nbreaks": "line breaks are dropped with the blanks",
		} {
			differs(t, theirs, text, ours.Encode(text), why)
		}
	})
	t.Run("Llama-2", func(t *testing.T) {
		ours, err := parseJSON(llama2JSON(t))
		if err != nil {
			t.Fatal(err)
		}
		theirs := open(t, jsonFile, llama2JSON(t), config)
		for text, why := range map[string]string{
			"grabbed":    "the normalizer Prepend is ignored",
			"a b":        "the blanks go before the normalizer's ▁ can come",
			"\U0001F999": "no byte fallback: an unknown character is <unk>",
		} {
			differs(t, theirs, text, ours.Encode(text), why)
		}
		ids := ours.Encode("Hello \U0001F999 there")
		var ints []int
		for _, id := range ids[1:] {
			ints = append(ints, int(id))
		}
		if got, want := theirs.Decode(ints), ours.Decode(ids, true); got == want {
			t.Errorf("upstream decodes %q too: the fault is gone (Strip takes blanks at both ends of all)", got)
		}
	})
}
