package tokenizer

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in the text before anything else: special ones such as <s>,
// and words that were added to a vocabulary later.
type addedToken struct {
	id         Token
	content    string
	singleWord bool // only between characters that belong to no word
	lstrip     bool // takes the blanks before it along
	rstrip     bool // takes the blanks behind it along
	normalized bool // looked for in the normalized text rather than in the raw one
	special    bool
}

// addedTokens finds added tokens, in two passes as Hugging Face's tokenizers do: first those of the
// raw text, then, in the pieces between them after these were normalized, the others.
type addedTokens struct {
	byID      map[Token]addedToken
	byContent map[string]addedToken
	raw       finder
	inNormal  finder
}

func newAddedTokens(list []addedToken, normalize normalizer) *addedTokens {
	a := &addedTokens{byID: make(map[Token]addedToken), byContent: make(map[string]addedToken)}
	for _, token := range list {
		if token.content == "" {
			continue
		}
		a.byID[token.id], a.byContent[token.content] = token, token
	}
	for _, token := range a.byContent {
		if !token.normalized {
			a.raw.add(token.content, token)
		} else if normalize == nil {
			a.inNormal.add(token.content, token)
		} else {
			a.inNormal.add(normalize(token.content), token)
		}
	}
	a.raw.sort()
	a.inNormal.sort()
	return a
}

// segment is an added token, or text between added tokens.
type segment struct {
	id    Token  // of the added token, -1 for text
	text  string // normalized
	first bool   // the segment begins where the whole text does
}

func (a *addedTokens) split(text string, normalize normalizer, splitSpecial bool) []segment {
	var out []segment
	for _, outer := range a.raw.split(text, splitSpecial) {
		if outer.id >= 0 {
			out = append(out, outer)
			continue
		}
		if normalize != nil {
			outer.text = normalize(outer.text)
		}
		for _, inner := range a.inNormal.split(outer.text, splitSpecial) {
			inner.first = inner.first && outer.first
			out = append(out, inner)
		}
	}
	return out
}

// finder finds the leftmost, then longest, of several patterns.
type finder struct {
	patterns []pattern // in the order of their texts
	first    [256]run  // by a text's first byte
}

type pattern struct {
	text  string
	token addedToken
}

// run is where patterns of one kind lie: from low on, below high.
type run struct{ low, high int32 }

func (f *finder) add(text string, token addedToken) {
	if text != "" {
		f.patterns = append(f.patterns, pattern{text, token})
	}
}

func (f *finder) sort() {
	slices.SortFunc(f.patterns, func(a, b pattern) int {
		return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.token.id, b.token.id))
	})
	// of two tokens of one normalized form the same one counts every time
	f.patterns = slices.CompactFunc(f.patterns, func(a, b pattern) bool { return a.text == b.text })
	for i, p := range f.patterns {
		of := &f.first[p.text[0]]
		if of.high == 0 {
			of.low = int32(i)
		}
		of.high = int32(i) + 1
	}
}

// match returns the longest pattern that text begins with. It narrows the run of patterns that go
// on as the text does, byte by byte: one letter that begins 100,000 patterns costs as many steps as
// the text shares bytes with one.
func (f *finder) match(text string) (pattern, bool) {
	r, longest := f.first[text[0]], -1
	low, high := int(r.low), int(r.high)
	for n := 1; low < high; n++ { // the patterns of the run begin with text[:n]
		if len(f.patterns[low].text) == n {
			longest = low
			low++
		}
		if n == len(text) {
			break
		}
		if high-low == 1 {
			if strings.HasPrefix(text[n:], f.patterns[low].text[n:]) {
				longest = low
			}
			break
		}
		c := text[n]
		low += sort.Search(high-low, func(i int) bool { return f.patterns[low+i].text[n] >= c })
		high = low + sort.Search(high-low, func(i int) bool { return f.patterns[low+i].text[n] > c })
	}
	if longest < 0 {
		return pattern{}, false
	}
	return f.patterns[longest], true
}

func (f *finder) split(text string, splitSpecial bool) []segment {
	if text == "" {
		return nil
	}
	var out []segment
	done := 0
	for at := 0; at < len(text); {
		p, found := f.match(text[at:])
		if !found {
			at++
			continue
		}
		start, end := at, at+len(p.text)
		at = end
		if splitSpecial && p.token.special || p.token.singleWord && !standsAlone(text, start, end) {
			continue
		}
		if p.token.lstrip {
			start = max(done, len(strings.TrimRightFunc(text[:start], unicode.IsSpace)))
		}
		if p.token.rstrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
			at = end
		}
		if start > done {
			out = append(out, segment{id: -1, text: text[done:start], first: done == 0})
		}
		out = append(out, segment{id: p.token.id})
		done = end
	}
	if done < len(text) {
		out = append(out, segment{id: -1, text: text[done:], first: done == 0})
	}
	return out
}

// standsAlone says that no character of a word touches text[start:end].
func standsAlone(text string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return !(start > 0 && isWord(before)) && !(end < len(text) && isWord(after))
}

// isWord is \w of the regular expressions that Hugging Face's tokenizers use.
func isWord(r rune) bool {
	return unicode.Is(unicode.Other_Alphabetic, r) || unicode.IsLetter(r) || unicode.Is(unicode.Nl, r) || unicode.IsMark(r) ||
		unicode.Is(unicode.Nd, r) || unicode.Is(unicode.Pc, r) || unicode.Is(unicode.Join_Control, r)
}
