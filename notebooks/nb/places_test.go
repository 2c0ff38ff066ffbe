package nb

import (
	"strings"
	"testing"
)

func TestPlacesOfTokens(t *testing.T) {
	pieces := strings.Split("a<cdefgh", "")
	got := places(pieces, 2, 3)
	for _, want := range []string{`bold">a&lt;</span>`, `>cde</span>`, `underline">fgh</span></p>`, "sink: 2 tokens", "codes: 3 tokens", "window: 3 tokens"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	if got := places(pieces, 20, 0); !strings.Contains(got, "sink: 8 tokens") || !strings.Contains(got, "window: 0 tokens") {
		t.Errorf("a text shorter than the sinks: %s", got)
	}
}
