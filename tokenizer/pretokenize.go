package tokenizer

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// normalizer rewrites text before it is cut.
type normalizer func(string) string

// preTokenizer cuts words further; no token of the model crosses the cuts. first says that the
// first word begins where the whole text does.
type preTokenizer func(words []string, first bool) []string

// Regular expressions of published models.
const (
	// patternGPT2 is also what the pre-tokenizer ByteLevel has built in.
	patternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	// patternLlama3 is Llama-3's.
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// patternQwen2 is Qwen2's and Qwen3's: Llama-3's, but each numeric character is a word.
	patternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// splitter cuts text by a regular expression of Oniguruma's kind (see fromOniguruma). Of what Go's
// package regexp lacks it has one thing: "\s+(?!\S)|\s+", the end of all these patterns, looks
// ahead. A run of blanks before a word leaves its last one to the word.
type splitter struct {
	re        *regexp.Regexp
	lookahead bool // the last group matched a run of blanks, to be shortened by that rule
	counted   bool // its work is counted, because it may be more than the text: see linear
}

// workFor is how many bytes a counted pattern may look at in a text. What is left then is one word.
func workFor(text string) int { return 1<<18 + 16*len(text) }

const lookaheadEnd = `|\s+(?!\S)|\s+`

func newSplitter(pattern string) (*splitter, error) {
	s := &splitter{}
	body, found := strings.CutSuffix(pattern, lookaheadEnd)
	if found {
		s.lookahead = true
		body += `|(\s+)`
	}
	body, err := fromOniguruma(body)
	var re *regexp.Regexp
	if err == nil {
		re, err = regexp.Compile(body)
	}
	if err != nil {
		return nil, usererr.New("pre-tokenizer: pattern %.200q is not supported: %w", pattern, err)
	}
	s.re, s.counted = re, !linear(body)
	return s, nil
}

// find returns the next match in text at or after from, or -1, and how many bytes a counted
// pattern looked at.
func (s *splitter) find(text string, from int) (start, end, work int) {
	var m []int
	switch {
	case s.counted:
		r := strings.NewReader(text[from:])
		m = s.re.FindReaderSubmatchIndex(r)
		work = len(text) - from - r.Len()
	case s.lookahead:
		m = s.re.FindStringSubmatchIndex(text[from:])
	default:
		m = s.re.FindStringIndex(text[from:])
	}
	if m == nil {
		return -1, -1, work
	}
	start, end = from+m[0], from+m[1]
	if !s.lookahead || m[len(m)-2] < 0 || end == len(text) {
		return start, end, work
	}
	if _, last := utf8.DecodeLastRuneInString(text[start:end]); end-last > start {
		end -= last
	}
	return start, end, work
}

// isolated cuts at every match: matches and what lies between them are words.
func (s *splitter) isolated(words []string, _ bool) []string {
	out := make([]string, 0, len(words))
	left := 0
	for _, word := range words {
		left += workFor(word)
	}
	for _, word := range words {
		done, at := 0, 0
		for at < len(word) && left > 0 {
			start, end, work := s.find(word, at)
			left -= work
			if start < 0 || start == len(word) {
				break
			}
			if start > done {
				out = append(out, word[done:start])
			}
			if done = end; start < end {
				out = append(out, word[start:end])
				at = end
				continue
			}
			// an empty match cuts, and the next one is looked for behind the next character
			_, size := utf8.DecodeRuneInString(word[start:])
			at = start + size
		}
		if done < len(word) {
			out = append(out, word[done:])
		}
	}
	return out
}

// digits makes each numeric character a word of its own, or each run of them.
func digits(individual bool) preTokenizer {
	return func(words []string, _ bool) []string {
		out := make([]string, 0, len(words))
		for _, word := range words {
			start, wasDigit := 0, false
			for i, r := range word {
				digit := unicode.IsNumber(r)
				if i > 0 && (digit != wasDigit || digit && individual) {
					out = append(out, word[start:i])
					start = i
				}
				wasDigit = digit
			}
			if start < len(word) {
				out = append(out, word[start:])
			}
		}
		return out
	}
}

// byteLevel cuts by GPT-2's pattern (unless useRegex is off), then writes each byte as one
// printable character.
func byteLevel(addPrefixSpace, useRegex bool) (preTokenizer, error) {
	cut, err := newSplitter(patternGPT2)
	if err != nil {
		return nil, err
	}
	return func(words []string, first bool) []string {
		if addPrefixSpace {
			for i, word := range words {
				if !strings.HasPrefix(word, " ") {
					words[i] = " " + word
				}
			}
		}
		if useRegex {
			words = cut.isolated(words, first)
		}
		for i, word := range words {
			words[i] = toByteCharacters(word)
		}
		return words
	}, nil
}

// metaspace writes blanks as replacement (▁) and puts one in front: of every word ("always"), of
// the text's beginning ("first"), or none ("never").
func metaspace(replacement, scheme string, split bool) preTokenizer {
	return func(words []string, first bool) []string {
		var out []string
		for i, word := range words {
			word = strings.ReplaceAll(word, " ", replacement)
			if (scheme == "always" || scheme == "first" && first && i == 0) && !strings.HasPrefix(word, replacement) {
				word = replacement + word
			}
			if !split {
				out = append(out, word)
				continue
			}
			start := 0
			for i := range word {
				if i > start && strings.HasPrefix(word[i:], replacement) {
					out = append(out, word[start:i])
					start = i
				}
			}
			if start < len(word) {
				out = append(out, word[start:])
			}
		}
		return out
	}
}

// sequence applies several pre-tokenizers one after the other.
func sequence(parts []preTokenizer) preTokenizer {
	return func(words []string, first bool) []string {
		for _, part := range parts {
			words = part(words, first)
		}
		return words
	}
}

// byteCharacter is GPT-2's table: printable bytes stand for themselves, the others for characters
// from U+0100 on.
var byteCharacter, characterByte = func() (*[256]rune, map[rune]byte) {
	var to [256]rune
	from := make(map[rune]byte, 256)
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		to[b], from[r] = r, byte(b)
	}
	return &to, from
}()

func toByteCharacters(word string) string {
	var out strings.Builder
	out.Grow(2 * len(word))
	for i := range len(word) {
		out.WriteRune(byteCharacter[word[i]])
	}
	return out.String()
}
