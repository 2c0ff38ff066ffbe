package tokenizer

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// All patterns of published models are proven to be linear, so they run as they did.
func TestPublishedPatternsAreLinear(t *testing.T) {
	patterns := []string{patternGPT2, patternLlama3, patternQwen2}
	for _, kind := range ggufPreTokenizers {
		patterns = append(patterns, kind.patterns...)
	}
	for _, p := range patterns {
		if cut, err := newSplitter(p); err != nil || cut.counted {
			t.Errorf("%.80s: counted, %v", p, err)
		}
	}
	for _, p := range []string{`a.*z|a`, `a[^z]*z|a`, `(a|b)*z|a`, `a(?:.*z)?`, `[ab]+z|b`, `a.*?z`, `\p{L}+!|\p{Lu}+`, `a+$|a`, `(?:.*z)?a`, `(a+)+b|a`, `ab.{3,}c|a|b`} {
		if cut, err := newSplitter(p); err != nil || !cut.counted {
			t.Errorf("%s: not counted, %v", p, err)
		}
	}
}

// Counting changes no cut, where the work is within bounds.
func TestCountedCuts(t *testing.T) {
	texts := []string{"aazbza aza", "  a\n\nzz  \t", "äöa zÜz", "", "abzazaab", strings.Repeat("ab z", 50)}
	for _, p := range []string{`a.*z|a`, `(a|b)*z|a`, `[ab]+z|b| `, patternGPT2, patternLlama3, patternQwen2, `\s+x|\w` + lookaheadEnd} {
		cut, err := newSplitter(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			cut.counted = true
			counted := cut.isolated([]string{text}, true)
			cut.counted = false
			if plain := cut.isolated([]string{text}, true); !slices.Equal(counted, plain) {
				t.Errorf("%s cuts %q into %q, counted into %q", p, text, plain, counted)
			}
		}
	}
}

// A pattern that looks at the rest of the text for each letter does not take the square of its
// length: 2.6 s for 16,000 letters without.
func TestQuadraticPatterns(t *testing.T) {
	text := strings.Repeat("a", 100_000)
	for _, p := range []string{`a.*z|a`, `a[^z]*z|a`, `(a|b)*z|a`} {
		cut, err := newSplitter(p)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if words := cut.isolated([]string{text}, true); strings.Join(words, "") != text {
			t.Errorf("%s: words do not make the text", p)
		}
		if spent := time.Since(began); spent > 20*time.Second {
			t.Errorf("%s: %s", p, spent)
		}
	}
}
