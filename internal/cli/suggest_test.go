package cli

import "testing"

func TestSuggest(t *testing.T) {
	names := []string{"balanced", "lowest", "quality", "smallest", "max-new-tokens"}
	for word, want := range map[string]string{
		"ballanced":     "; did you mean balanced?",
		"small":         "; did you mean smallest?",
		"max-new-token": "; did you mean max-new-tokens?",
		"nothing":       "",
		"":              "",
	} {
		if got := Suggest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
