package tokenizer

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// Cuts by patterns as Oniguruma means them. The words are those of Hugging Face's tokenizers
// 0.23.3.
func TestOniguruma(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          []string
	}{
		{`\s+$`, "a  \nb  ", []string{"a", "  ", "\nb", "  "}},
		{`a$`, "a\naa", []string{"a", "\na", "a"}},
		{`.+`, "ab\ncd", []string{"ab", "\n", "cd"}},
		{`[^\n]+$`, "ab\ncd", []string{"ab", "\n", "cd"}},
		{`a*`, "baab", []string{"b", "aa", "b"}},
		{`x*`, "aab", []string{"a", "a", "b"}},
		{`\d+`, "1²٣", []string{"1", "²", "٣"}},
		{`\w+`, "aé_1-", []string{"aé_1", "-"}},
		{`[[:alpha:]]+`, "aé1", []string{"aé", "1"}},
		{`(?i)k`, "K\u212a k", []string{"K", "\u212a", " ", "k"}},
		{`[^\S\n]+`, "a \u00a0\nb", []string{"a", " \u00a0", "\nb"}},
		{`[\S]+`, "é \u3000a", []string{"é", " \u3000", "a"}},
		{`[]x]+`, "a]x[", []string{"a", "]x", "["}},
		{`a\z`, "aa", []string{"a", "a"}},
	} {
		cut, err := newSplitter(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := cut.isolated([]string{c.text}, true); !slices.Equal(got, c.want) {
			t.Errorf("%s cuts %q into %q, want %q", c.pattern, c.text, got, c.want)
		}
	}
	for _, pattern := range []string{`^a`, `\ba`, `a\B`, `\Aa`, `\Ga`, `[a[b]]`, `[a-z&&[^b]]`, `[[:punct:]]`, `\h`, `\X`, `(?<=a)b`, `(?>a)`, `a++`} {
		if _, err := newSplitter(pattern); err == nil || !strings.Contains(err.Error(), "is not supported") {
			t.Errorf("%s: %v, want it refused by name", pattern, err)
		}
	}
}

// Classes within brackets and their complements part all characters.
func TestOnigurumaClasses(t *testing.T) {
	for letter, class := range onigClasses {
		inside, outside := regexp.MustCompile("^["+class.inside+"]$"), regexp.MustCompile("^["+class.outside()+"]$")
		for _, table := range append(class.tables, unicode.Latin, unicode.So, unicode.Cf, unicode.Zs, unicode.Cc) {
			for _, r := range table.R16 {
				for _, c := range []rune{rune(r.Lo), rune(r.Hi), rune(r.Lo) - 1, rune(r.Hi) + 1} {
					if c < 0 || c >= 0xD800 && c <= 0xDFFF {
						continue
					}
					want := unicode.In(c, class.tables...)
					if inside.MatchString(string(c)) != want || outside.MatchString(string(c)) == want {
						t.Errorf("\\%c: %U is inside %v, outside %v; want inside %v", letter, c, inside.MatchString(string(c)), outside.MatchString(string(c)), want)
					}
				}
			}
		}
	}
}
