package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type kind uint8

const (
	endOfFile kind = iota
	data
	variableBegin
	variableEnd
	blockBegin
	blockEnd
	name
	text // a string
	number
	operator
)

type token struct {
	kind  kind
	text  string // the name, the string's value, the operator, the data
	value any    // a number's: int64 or float64
	at    int    // place in the source
}

// lexer makes tokens as jinja2/lexer.py does with trim_blocks and lstrip_blocks.
type lexer struct {
	source       string
	pos          int
	tokens       []token
	lineStarting bool // what was read last ended with a line break
}

func (l *lexer) fail(at int, format string, args ...any) {
	panic(stop{newError(l.source, at, fmt.Sprintf(format, args...))})
}

// normalize makes every line break a \n.
func normalize(s string) string {
	if !strings.ContainsRune(s, '\r') {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// isSpace is Python's str.isspace for one code point, and what \s matches.
func isSpace(c rune) bool { return unicode.IsSpace(c) || c >= 0x1c && c <= 0x1f }

func trimLeft(s string) string  { return strings.TrimLeftFunc(s, isSpace) }
func trimRight(s string) string { return strings.TrimRightFunc(s, isSpace) }

func (l *lexer) emit(k kind, text string, at int) {
	l.tokens = append(l.tokens, token{kind: k, text: text, at: at})
}

// moveTo goes on at a place, and keeps whether what is left behind ended a line.
func (l *lexer) moveTo(pos int) {
	l.pos, l.lineStarting = pos, pos > 0 && l.source[pos-1] == '\n'
}

func (l *lexer) skipSpace(pos int) int { return len(l.source) - len(trimLeft(l.source[pos:])) }

func lex(source string) []token {
	l := &lexer{source: source, lineStarting: true}
	for l.pos < len(source) {
		begin := l.pos
		at := -1
		for i := l.pos; i+1 < len(source); i++ {
			if j := strings.IndexByte(source[i:], '{'); j < 0 || i+j+1 >= len(source) {
				break
			} else if i += j; source[i+1] == '%' || source[i+1] == '{' || source[i+1] == '#' {
				at = i
				break
			}
		}
		if at < 0 {
			l.emit(data, source[l.pos:], l.pos)
			break
		}
		opened := source[at+1]
		after := at + 2
		sign := byte(0)
		if after < len(source) && (source[after] == '-' || source[after] == '+') {
			sign = source[after]
			after++
		}
		if before := l.stripped(source[begin:at], sign, opened == '{'); before != "" {
			l.emit(data, before, begin)
		}
		switch opened {
		case '#':
			l.comment(at, after)
		case '{':
			l.emit(variableBegin, "", at)
			l.tag(at, after, false)
		default:
			if body, raw := l.rawBegin(after); raw {
				l.raw(at, body)
				continue
			}
			l.emit(blockBegin, "", at)
			l.tag(at, after, true)
		}
	}
	l.emit(endOfFile, "", len(source))
	return l.tokens
}

// stripped is the text before a tag, without the blanks that the tag's sign or lstrip_blocks take
// away.
func (l *lexer) stripped(before string, sign byte, variable bool) string {
	if sign == '-' {
		return trimRight(before)
	}
	if sign != '+' && !variable {
		line := strings.LastIndexByte(before, '\n') + 1
		if (line > 0 || l.lineStarting) && trimLeft(before[line:]) == "" {
			return before[:line]
		}
	}
	return before
}

func (l *lexer) comment(at, after int) {
	end := strings.Index(l.source[after:], "#}")
	if end < 0 {
		l.fail(at, "a comment is not closed")
	}
	end += after
	switch next := end + 2; {
	case end > after && l.source[end-1] == '-':
		l.moveTo(l.skipSpace(next))
	case end > after && l.source[end-1] == '+':
		l.moveTo(next)
	default:
		l.moveTo(l.newline(next))
	}
}

// newline skips the line break that trim_blocks takes away behind a tag.
func (l *lexer) newline(pos int) int {
	if pos < len(l.source) && l.source[pos] == '\n' {
		return pos + 1
	}
	return pos
}

// rawBegin tells whether the tag that goes on at pos is {% raw %}, and where its body begins.
func (l *lexer) rawBegin(pos int) (body int, raw bool) {
	rest, is := strings.CutPrefix(trimLeft(l.source[pos:]), "raw")
	if !is {
		return 0, false
	}
	rest = trimLeft(rest)
	if rest, is := strings.CutPrefix(rest, "-%}"); is {
		return len(l.source) - len(trimLeft(rest)), true
	}
	if rest, is := strings.CutPrefix(rest, "%}"); is {
		return len(l.source) - len(rest), true
	}
	return 0, false
}

func (l *lexer) raw(at, body int) {
	l.moveTo(body)
	for i := body; ; {
		j := strings.Index(l.source[i:], "{%")
		if j < 0 {
			l.fail(at, "a raw block is not closed")
		}
		begin := i + j
		after, sign := begin+2, byte(0)
		if after < len(l.source) && (l.source[after] == '-' || l.source[after] == '+') {
			sign = l.source[after]
			after++
		}
		rest, is := strings.CutPrefix(trimLeft(l.source[after:]), "endraw")
		if is {
			next := len(l.source) - len(trimLeft(rest))
			end := -1
			switch rest := l.source[next:]; {
			case strings.HasPrefix(rest, "+%}"):
				end = next + 3
			case strings.HasPrefix(rest, "-%}"):
				end = l.skipSpace(next + 3)
			case strings.HasPrefix(rest, "%}"):
				end = l.newline(next + 2)
			}
			if end >= 0 {
				if body := l.stripped(l.source[body:begin], sign, false); body != "" {
					l.emit(data, body, at)
				}
				l.moveTo(end)
				return
			}
		}
		i = begin + 2
	}
}

// tag reads the inside of {{ }} or {% %}, its end included.
func (l *lexer) tag(at, pos int, block bool) {
	var open []byte // the closing brackets that are awaited
	for {
		pos = l.skipSpace(pos)
		rest := l.source[pos:]
		if rest == "" {
			l.fail(at, "a tag is not closed")
		}
		if len(open) == 0 {
			if end, next := l.tagEnd(pos, block); end {
				k := variableEnd
				if block {
					k = blockEnd
				}
				l.emit(k, "", pos)
				l.moveTo(next)
				return
			}
		}
		c, _ := utf8.DecodeRuneInString(rest)
		switch {
		case c >= '0' && c <= '9':
			pos = l.number(pos)
		case c == '_' || unicode.IsLetter(c):
			end := strings.IndexFunc(rest, func(c rune) bool {
				return c != '_' && !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.Is(unicode.Mn, c) && !unicode.Is(unicode.Mc, c)
			})
			if end < 0 {
				end = len(rest)
			}
			l.emit(name, rest[:end], pos)
			pos += end
		case c == '\'' || c == '"':
			pos = l.quoted(pos)
		default:
			op := ""
			for _, try := range []string{"//", "**", "==", "!=", ">=", "<="} {
				if strings.HasPrefix(rest, try) {
					op = try
				}
			}
			if op == "" {
				if !strings.ContainsRune("+-/*%~[](){}><=.:|,;", c) {
					l.fail(pos, "an unexpected character")
				}
				op = rest[:1]
			}
			switch op {
			case "{":
				open = append(open, '}')
			case "(":
				open = append(open, ')')
			case "[":
				open = append(open, ']')
			case "}", ")", "]":
				if len(open) == 0 || open[len(open)-1] != op[0] {
					l.fail(pos, "a closing bracket without its opening one")
				}
				open = open[:len(open)-1]
			}
			if len(open) > maxNesting {
				l.fail(pos, "brackets are nested too deeply, want at most %d levels", maxNesting)
			}
			l.emit(operator, op, pos)
			pos += len(op)
		}
	}
}

func (l *lexer) tagEnd(pos int, block bool) (end bool, next int) {
	rest := l.source[pos:]
	if !block {
		if strings.HasPrefix(rest, "-}}") {
			return true, l.skipSpace(pos + 3)
		}
		return strings.HasPrefix(rest, "}}"), pos + 2
	}
	switch {
	case strings.HasPrefix(rest, "+%}"):
		return true, pos + 3
	case strings.HasPrefix(rest, "-%}"):
		return true, l.skipSpace(pos + 3)
	case strings.HasPrefix(rest, "%}"):
		return true, l.newline(pos + 2)
	}
	return false, 0
}

// digits returns the end of (\d+_)*\d+ at pos, or pos.
func (l *lexer) digits(pos int) int {
	end := pos
	for i := pos; i < len(l.source); i++ {
		if c := l.source[i]; c >= '0' && c <= '9' {
			end = i + 1
		} else if c != '_' || i == pos || l.source[i-1] == '_' {
			break
		}
	}
	return end
}

func (l *lexer) number(pos int) int {
	s := l.source
	at := func(i int) byte {
		if i < len(s) {
			return s[i] | 0x20 // lower case
		}
		return 0
	}
	if pos == 0 || s[pos-1] != '.' {
		end := l.digits(pos)
		float := false
		if end < len(s) && s[end] == '.' {
			if fraction := l.digits(end + 1); fraction > end+1 {
				end, float = fraction, true
			}
		}
		if at(end) == 'e' {
			exponent := end + 1
			if exponent < len(s) && (s[exponent] == '+' || s[exponent] == '-') {
				exponent++
			}
			if stop := l.digits(exponent); stop > exponent {
				end, float = stop, true
			}
		}
		if float {
			// too large: infinity, as in Python
			value, _ := strconv.ParseFloat(strings.ReplaceAll(s[pos:end], "_", ""), 64)
			l.tokens = append(l.tokens, token{kind: number, value: value, at: pos})
			return end
		}
	}
	run := func(i int, allowed string) int { // the end of (_?[allowed])*
		end := i
		for ; i < len(s); i++ {
			if strings.IndexByte(allowed, at(i)) >= 0 && s[i] != '_' {
				end = i + 1
			} else if s[i] != '_' || i > end {
				break
			}
		}
		return end
	}
	end, base := pos+1, 10
	if s[pos] == '0' {
		prefixed := false
		for _, p := range []struct {
			letter  byte
			digits  string
			numbers int
		}{{'b', "01", 2}, {'o', "01234567", 8}, {'x', "0123456789abcdef", 16}} {
			if at(pos+1) == p.letter {
				if stop := run(pos+2, p.digits); stop > pos+2 {
					end, base, prefixed = stop, p.numbers, true
				}
			}
		}
		if !prefixed {
			end = run(pos+1, "0")
		}
	} else {
		end = run(pos+1, "0123456789")
	}
	digits := strings.ReplaceAll(s[pos:end], "_", "")
	if base != 10 {
		digits = digits[2:]
	}
	value, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		l.fail(pos, "an integer beyond 64 bits: not supported")
	}
	l.tokens = append(l.tokens, token{kind: number, value: value, at: pos})
	return end
}

func (l *lexer) quoted(pos int) int {
	quote := l.source[pos]
	i := pos + 1
	for ; i < len(l.source) && l.source[i] != quote; i++ {
		if l.source[i] == '\\' {
			i++
		}
	}
	if i >= len(l.source) {
		l.fail(pos, "a string is not closed")
	}
	l.emit(text, l.unescape(l.source[pos+1:i], pos), pos)
	return i + 1
}

// unescape resolves a string's backslashes as Python's unicode-escape does.
func (l *lexer) unescape(s string, at int) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			i++
			continue
		}
		i++
		c, size := utf8.DecodeRuneInString(s[i:])
		i += size
		hex := func(digits int) {
			if i+digits > len(s) {
				l.fail(at, "a string with a truncated escape")
			}
			value, err := strconv.ParseUint(s[i:i+digits], 16, 32)
			if err != nil || value > unicode.MaxRune {
				l.fail(at, "a string with a malformed escape")
			}
			if !utf8.ValidRune(rune(value)) {
				l.fail(at, "a string with half a surrogate pair: not supported")
			}
			b.WriteRune(rune(value))
			i += digits
		}
		switch {
		case c == '\n':
		case c == '\\' || c == '\'' || c == '"':
			b.WriteRune(c)
		case c == 'a':
			b.WriteByte('\a')
		case c == 'b':
			b.WriteByte('\b')
		case c == 'f':
			b.WriteByte('\f')
		case c == 'n':
			b.WriteByte('\n')
		case c == 'r':
			b.WriteByte('\r')
		case c == 't':
			b.WriteByte('\t')
		case c == 'v':
			b.WriteByte('\v')
		case c == 'x':
			hex(2)
		case c == 'u':
			hex(4)
		case c == 'U':
			hex(8)
		case c == 'N':
			l.fail(at, "a string with a character by its name: not supported")
		case c >= '0' && c <= '7':
			value := c - '0'
			for n := 1; n < 3 && i < len(s) && s[i] >= '0' && s[i] <= '7'; n++ {
				value = value*8 + rune(s[i]-'0')
				i++
			}
			b.WriteRune(value)
		case c < utf8.RuneSelf:
			b.WriteByte('\\')
			b.WriteRune(c)
		// Jinja2 makes \xNN of these first, and the backslash before that then stands for itself.
		case c < 0x100:
			fmt.Fprintf(&b, "\\x%02x", c)
		case c < 0x10000:
			fmt.Fprintf(&b, "\\u%04x", c)
		default:
			fmt.Fprintf(&b, "\\U%08x", c)
		}
	}
	return b.String()
}
