package tokenizer

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/rangetable"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Patterns of tokenizer.json are Oniguruma's, in Ruby's syntax: \s, \d, \w and [:alpha:] mean
// Unicode, ^ and $ mean lines. Go's package regexp is of ASCII and of whole texts there, so they
// are written out. What cannot be is refused by name.

// onigClass is a class as the inside of brackets, and the tables that it stands for.
type onigClass struct {
	inside string
	tables []*unicode.RangeTable
}

var onigClasses = map[byte]onigClass{
	's': {`\t\n\v\f\r\x{85}\p{Z}`, []*unicode.RangeTable{unicode.White_Space}},
	'd': {`\p{Nd}`, []*unicode.RangeTable{unicode.Nd}},
	'w': {`\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}` + circled + `\x{200C}\x{200D}`, []*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control}},
}

// circled are the letters that are no letters: Other_Alphabetic without marks.
const circled = `\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}`

// onigPOSIX are classes such as [:alpha:].
var onigPOSIX = map[string]string{
	"space": onigClasses['s'].inside, "digit": `\p{Nd}`, "upper": `\p{Lu}`, "lower": `\p{Ll}`, "word": onigClasses['w'].inside,
	"alpha": `\p{L}\p{M}\p{Nl}` + circled, "alnum": `\p{L}\p{M}\p{Nl}\p{Nd}` + circled,
}

// outside writes all characters but those of a class, as the inside of brackets.
func (c onigClass) outside() string {
	var out strings.Builder
	next := rune(0) // the first that is not written yet
	all := rangetable.Merge(c.tables...)
	gap := func(low, high, stride rune) {
		for r := low; r <= high; r += stride {
			to := r
			if stride == 1 {
				to = high
			}
			if next < r {
				fmt.Fprintf(&out, `\x{%X}-\x{%X}`, next, r-1)
			}
			if next = to + 1; stride == 1 {
				return
			}
		}
	}
	for _, r := range all.R16 {
		gap(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	for _, r := range all.R32 {
		gap(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	fmt.Fprintf(&out, `\x{%X}-\x{%X}`, next, unicode.MaxRune)
	return out.String()
}

// maxPattern is how many bytes a pattern may have, when it is written for package regexp.
const maxPattern = 1 << 18

// fromOniguruma writes a pattern for Go's package regexp.
func fromOniguruma(pattern string) (string, error) {
	var out strings.Builder
	depth := 0 // of brackets
	for i := 0; i < len(pattern); i++ {
		if out.Len() > maxPattern {
			return "", usererr.New("it is longer than %d bytes", maxPattern)
		}
		c := pattern[i]
		switch {
		case c == '\\' && i+1 < len(pattern):
			i++
			c = pattern[i]
			class, found := onigClasses[c|0x20] // in lower case
			switch negated := c < 'a'; {
			case found && depth > 0 && negated:
				out.WriteString(class.outside())
			case found && depth > 0:
				out.WriteString(class.inside)
			case found && negated:
				out.WriteString("[^" + class.inside + "]")
			case found:
				out.WriteString("[" + class.inside + "]")
			case strings.IndexByte("bBAGK", c) >= 0 && depth == 0:
				return "", usererr.New("%c%c is not supported", '\\', c)
			default:
				out.WriteString(pattern[i-1 : i+1])
			}
			continue
		case depth > 0 && strings.HasPrefix(pattern[i:], "[:"):
			name, _, found := strings.Cut(pattern[i+2:], ":]")
			class := onigPOSIX[name]
			if !found || class == "" {
				return "", usererr.New("the class [:%.20s is not supported", pattern[i+2:])
			}
			out.WriteString(class)
			i += len("[:") + len(name) + len(":]") - 1
			continue
		case depth > 0 && strings.HasPrefix(pattern[i:], "&&"), depth > 0 && c == '[':
			return "", usererr.New("brackets within brackets are not supported")
		case c == '[' && depth == 0:
			depth++
			out.WriteByte(c)
			if rest := pattern[i+1:]; strings.HasPrefix(rest, "^]") || strings.HasPrefix(rest, "]") { // the first one is itself
				n := strings.IndexByte(rest, ']') + 1
				out.WriteString(rest[:n-1] + `\]`)
				i += n
			} else if strings.HasPrefix(rest, "^") {
				out.WriteByte('^')
				i++
			}
			continue
		case c == ']' && depth > 0:
			depth--
		case c == '$' && depth == 0:
			out.WriteString("(?m:$)")
			continue
		case c == '^' && depth == 0:
			return "", usererr.New("^ is not supported")
		}
		out.WriteByte(c)
	}
	return out.String(), nil
}
