package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// upper and lower are Python's: the full mappings of Unicode, ß becomes SS.
func (r *run) upper(s string) string { r.take(2 * len(s)); return cases.Upper(language.Und).String(s) }
func (r *run) lower(s string) string { r.take(2 * len(s)); return cases.Lower(language.Und).String(s) }

// titled makes the first character of s a title letter, and the others small.
func (r *run) titled(s string) string {
	if s == "" {
		return s
	}
	_, n := utf8.DecodeRuneInString(s)
	return r.titleLetter(s[:n]) + r.lower(s[n:])
}

func (r *run) titleLetter(c string) string {
	first, _ := utf8.DecodeRuneInString(c)
	if utf8.RuneCountInString(r.upper(c)) > 1 {
		r.unsupported("the title form of a letter whose capital form has several")
	}
	return string(unicode.ToTitle(first))
}

// splitLines is Python's str.splitlines.
func (r *run) splitLines(s string, keep bool) []any {
	r.read(len(s))
	var lines []any
	for s != "" {
		end, next := len(s), len(s)
	scan:
		for i, c := range s {
			switch c {
			case '\r', '\n', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
				end, next = i, i+utf8.RuneLen(c)
				if strings.HasPrefix(s[i:], "\r\n") {
					next++
				}
				break scan
			}
		}
		r.takeItems(2)
		if keep {
			end = next
		}
		lines = append(lines, s[:end])
		s = s[next:]
	}
	return lines
}

func texts(parts []string) *list {
	items := make([]any, len(parts))
	for i, p := range parts {
		items[i] = p
	}
	return &list{items: items}
}

// strip takes characters away at the ends of a string: those given, or blanks.
func (r *run) strip(s string, chars any, left, right bool) string {
	r.read(len(s))
	is := isSpace
	if given(chars) && chars != nil {
		set := r.textOr(chars, "")
		r.step(len(set))
		members := make(map[rune]bool, len(set))
		for _, c := range set {
			members[c] = true
		}
		is = func(c rune) bool { return members[c] }
	}
	if left {
		s = strings.TrimLeftFunc(s, is)
	}
	if right {
		s = strings.TrimRightFunc(s, is)
	}
	return s
}

// splitBlanks is Python's split without a separator, at most n times from the left or the right; n
// < 0 is no limit.
func splitBlanks(s string, n int64, fromRight bool) []string {
	var parts []string
	for {
		if fromRight {
			s = trimRight(s)
		} else {
			s = trimLeft(s)
		}
		if s == "" {
			break
		}
		at := -1
		if n >= 0 && int64(len(parts)) == n {
			if fromRight {
				s = trimRight(s)
			}
		} else if fromRight {
			at = strings.LastIndexFunc(s, isSpace)
		} else {
			at = strings.IndexFunc(s, isSpace)
		}
		if at < 0 {
			parts = append(parts, s)
			break
		}
		_, width := utf8.DecodeRuneInString(s[at:])
		if fromRight {
			parts, s = append(parts, s[at+width:]), s[:at]
		} else {
			parts, s = append(parts, s[:at]), s[at+width:]
		}
	}
	if fromRight {
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
			parts[i], parts[j] = parts[j], parts[i]
		}
	}
	return parts
}

func (r *run) split(s string, args []any, kw keywords, fromRight bool) any {
	a := r.bind(args, kw, 0, "sep", "maxsplit")
	n := r.intOr(a[1], -1)
	r.read(len(s))
	if !given(a[0]) || a[0] == nil {
		r.takeItems(len(s)) // as many parts as can be
		return texts(splitBlanks(s, n, fromRight))
	}
	separator := r.textOr(a[0], "")
	if separator == "" {
		r.fail("an empty separator")
	}
	r.takeItems(2 * (strings.Count(s, separator) + 1))
	if n < 0 || n >= int64(len(s)) {
		return texts(strings.Split(s, separator))
	}
	if !fromRight {
		return texts(strings.SplitN(s, separator, int(n)+1))
	}
	var parts []string
	for ; n > 0; n-- {
		at := strings.LastIndex(s, separator)
		if at < 0 {
			break
		}
		r.read(len(s) - at)
		parts, s = append(parts, s[at+len(separator):]), s[:at]
	}
	parts = append(parts, s)
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return texts(parts)
}

func (r *run) replace(s, old, with string, n int64) string {
	r.read(len(s))
	found := int64(strings.Count(s, old))
	if n < 0 || n > found {
		n = found
	}
	if len(with) > 0 && n > int64(r.limits.Made)/int64(len(with)) {
		r.take(-1)
	}
	r.take(len(s) + int(n)*len(with))
	return strings.Replace(s, old, with, int(n))
}

func (r *run) pad(s string, width int64, fill any, left, right bool) string {
	with := r.textOr(fill, " ")
	if utf8.RuneCountInString(with) != 1 {
		r.fail("the character to fill with must be one")
	}
	n, _ := r.size(s)
	if width <= n {
		return s
	}
	if width > int64(r.limits.Made) {
		r.take(-1)
	}
	gap := int(width - n)
	r.take(len(s) + gap*len(with))
	switch {
	case left && right:
		before := gap/2 + gap&int(width)&1
		return strings.Repeat(with, before) + s + strings.Repeat(with, gap-before)
	case left:
		return strings.Repeat(with, gap) + s
	}
	return s + strings.Repeat(with, gap)
}

// within is the part of s between two bounds, in code points, and where it begins; ok is false
// where they are crossed.
func (r *run) within(s string, from, to any) (part string, start int64, ok bool) {
	if (!given(from) || from == nil) && (!given(to) || to == nil) {
		r.read(len(s))
		return s, 0, true
	}
	n, _ := r.size(s)
	bound := func(v any, standard int64) int64 {
		if !given(v) || v == nil {
			return standard
		}
		i := r.intOr(v, 0)
		if i < 0 {
			i = max(i+n, 0)
		}
		return i
	}
	start, stop := bound(from, 0), min(bound(to, n), n)
	if start > stop {
		return "", start, false
	}
	return r.slice(s, [3]any{start, stop, nil}).(string), start, true
}

func (r *run) find(s string, args []any, kw keywords, last, must bool) any {
	a := r.bind(args, kw, 1, "/sub", "/start", "/end")
	sub := r.textOr(a[0], "")
	part, start, ok := r.within(s, a[1], a[2])
	at := -1
	if ok {
		if at = strings.Index(part, sub); last {
			at = strings.LastIndex(part, sub)
		}
	}
	if at < 0 {
		if must {
			r.fail("a substring is not found")
		}
		return int64(-1)
	}
	return start + int64(utf8.RuneCountInString(part[:at]))
}

func (r *run) affix(s string, args []any, kw keywords, has func(s, affix string) bool) any {
	a := r.bind(args, kw, 1, "/affix", "/start", "/end")
	options := []any{a[0]}
	if l, is := a[0].(*list); is && l.tuple {
		options = l.items
	}
	part, _, ok := r.within(s, a[1], a[2])
	for _, o := range options {
		r.step(1)
		if affix := r.textOr(o, ""); ok && has(part, affix) {
			return true
		}
	}
	return false
}

func (r *run) join(separator string, parts []any, text func(any) string) string {
	list := make([]string, len(parts))
	size := 0
	for i, p := range parts {
		list[i] = text(p)
		size += len(list[i]) + len(separator)
		if size > r.limits.Made {
			r.take(-1)
		}
	}
	r.take(size)
	return strings.Join(list, separator)
}

type stringMethod = func(r *run, s string, args []any, kw keywords) any

// simple is a method without arguments.
func simple(f func(r *run, s string) any) stringMethod {
	return func(r *run, s string, args []any, kw keywords) any {
		r.bind(args, kw, 0)
		return f(r, s)
	}
}

// every is true of a string that is not empty and whose characters all are.
func every(is func(c rune) bool) stringMethod {
	return simple(func(r *run, s string) any {
		r.read(len(s))
		return s != "" && strings.IndexFunc(s, func(c rune) bool { return !is(c) }) < 0
	})
}

// cased is Python's isupper and islower: no letter of the other case, and one of this.
func cased(s string, is, not func(c rune) bool) bool {
	return strings.IndexFunc(s, is) >= 0 && strings.IndexFunc(s, func(c rune) bool { return not(c) || unicode.IsTitle(c) }) < 0
}

var stringMethods map[string]stringMethod

func init() {
	strip := func(left, right bool) stringMethod {
		return func(r *run, s string, args []any, kw keywords) any {
			return r.strip(s, r.bind(args, kw, 0, "/chars")[0], left, right)
		}
	}
	pad := func(left, right bool) stringMethod {
		return func(r *run, s string, args []any, kw keywords) any {
			a := r.bind(args, kw, 1, "/width", "/fill")
			return r.pad(s, r.intOr(a[0], 0), a[1], left, right)
		}
	}
	find := func(last, must bool) stringMethod {
		return func(r *run, s string, args []any, kw keywords) any { return r.find(s, args, kw, last, must) }
	}
	partition := func(last bool) stringMethod {
		return func(r *run, s string, args []any, kw keywords) any {
			sep := r.textOr(r.bind(args, kw, 1, "/sep")[0], "")
			if sep == "" {
				r.fail("an empty separator")
			}
			r.read(len(s))
			at := strings.Index(s, sep)
			if last {
				at = strings.LastIndex(s, sep)
			}
			parts := []any{s, "", ""}
			if at >= 0 {
				parts = []any{s[:at], sep, s[at+len(sep):]}
			} else if last {
				parts = []any{"", "", s}
			}
			return &list{items: parts, tuple: true}
		}
	}
	stringMethods = map[string]stringMethod{
		"strip": strip(true, true), "lstrip": strip(true, false), "rstrip": strip(false, true),
		"split":  func(r *run, s string, args []any, kw keywords) any { return r.split(s, args, kw, false) },
		"rsplit": func(r *run, s string, args []any, kw keywords) any { return r.split(s, args, kw, true) },
		"splitlines": func(r *run, s string, args []any, kw keywords) any {
			return &list{items: r.splitLines(s, r.truthOr(r.bind(args, kw, 0, "keepends")[0], false))}
		},
		"partition": partition(false), "rpartition": partition(true),
		"find": find(false, false), "rfind": find(true, false), "index": find(false, true), "rindex": find(true, true),
		"startswith": func(r *run, s string, args []any, kw keywords) any { return r.affix(s, args, kw, strings.HasPrefix) },
		"endswith":   func(r *run, s string, args []any, kw keywords) any { return r.affix(s, args, kw, strings.HasSuffix) },
		"count": func(r *run, s string, args []any, kw keywords) any {
			a := r.bind(args, kw, 1, "/sub", "/start", "/end")
			sub := r.textOr(a[0], "")
			part, _, ok := r.within(s, a[1], a[2])
			if !ok {
				return int64(0)
			}
			return int64(strings.Count(part, sub))
		},
		"replace": func(r *run, s string, args []any, kw keywords) any {
			a := r.bind(args, kw, 2, "/old", "/new", "/count")
			return r.replace(s, r.textOr(a[0], ""), r.textOr(a[1], ""), r.intOr(a[2], -1))
		},
		"removeprefix": func(r *run, s string, args []any, kw keywords) any {
			return strings.TrimPrefix(s, r.textOr(r.bind(args, kw, 1, "/prefix")[0], ""))
		},
		"removesuffix": func(r *run, s string, args []any, kw keywords) any {
			return strings.TrimSuffix(s, r.textOr(r.bind(args, kw, 1, "/suffix")[0], ""))
		},
		"join": func(r *run, s string, args []any, kw keywords) any {
			parts := r.list(r.bind(args, kw, 1, "/iterable")[0])
			return r.join(s, parts, func(p any) string { return r.textOr(p, "") })
		},
		"upper": simple(func(r *run, s string) any { return r.upper(s) }),
		"lower": simple(func(r *run, s string) any { return r.lower(s) }),
		"casefold": simple(func(r *run, s string) any {
			r.take(3 * len(s))
			return cases.Fold().String(s)
		}),
		"capitalize": simple(func(r *run, s string) any { return r.titled(s) }),
		"title": simple(func(r *run, s string) any {
			r.take(len(s))
			var b strings.Builder
			inWord := false
			for _, c := range s {
				letter := unicode.IsLetter(c) && (unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c))
				switch {
				case letter && !inWord:
					b.WriteString(r.titleLetter(string(c)))
				case letter:
					b.WriteString(r.lower(string(c)))
				default:
					b.WriteRune(c)
				}
				inWord = letter
			}
			return b.String()
		}),
		"swapcase": simple(func(r *run, s string) any {
			r.take(len(s))
			var b strings.Builder
			for _, c := range s {
				switch {
				case unicode.IsUpper(c):
					b.WriteString(r.lower(string(c)))
				case unicode.IsLower(c):
					b.WriteString(r.upper(string(c)))
				default:
					b.WriteRune(c)
				}
			}
			return b.String()
		}),
		"center": pad(true, true), "ljust": pad(false, true), "rjust": pad(true, false),
		"zfill": func(r *run, s string, args []any, kw keywords) any {
			width := r.intOr(r.bind(args, kw, 1, "/width")[0], 0)
			if s != "" && (s[0] == '+' || s[0] == '-') {
				return s[:1] + r.pad(s[1:], width-1, "0", true, false)
			}
			return r.pad(s, width, "0", true, false)
		},
		"isspace":   every(isSpace),
		"isalpha":   every(unicode.IsLetter),
		"isdecimal": every(unicode.IsDigit),
		"isdigit": simple(func(r *run, s string) any {
			r.digitsOnly(s)
			return s != "" && strings.IndexFunc(s, func(c rune) bool { return !unicode.IsDigit(c) }) < 0
		}),
		"isnumeric": simple(func(r *run, s string) any {
			r.digitsOnly(s)
			return s != "" && strings.IndexFunc(s, func(c rune) bool { return !unicode.IsDigit(c) }) < 0
		}),
		"isalnum": simple(func(r *run, s string) any {
			r.digitsOnly(s)
			return s != "" && strings.IndexFunc(s, func(c rune) bool { return !unicode.IsDigit(c) && !unicode.IsLetter(c) }) < 0
		}),
		"isupper": simple(func(r *run, s string) any { r.read(len(s)); return cased(s, unicode.IsUpper, unicode.IsLower) }),
		"islower": simple(func(r *run, s string) any { r.read(len(s)); return cased(s, unicode.IsLower, unicode.IsUpper) }),
		"format":  func(r *run, s string, args []any, kw keywords) any { return r.formatBraces(s, args, kw) },
	}
}

// digitsOnly refuses characters that Unicode gives a number but that are no decimal digits, such as
// ² and 一, where Python's isdigit, isnumeric and isalnum differ from each other.
func (r *run) digitsOnly(s string) {
	r.read(len(s))
	for _, c := range s {
		if c >= 0x80 && (unicode.Is(unicode.No, c) || unicode.Is(unicode.Nl, c) || unicode.Is(unicode.Han, c)) {
			r.unsupported("asking whether ideographs, fractions or superscripts are digits")
		}
	}
}

// formatBraces is Python's str.format, with fields but without format specifications.
func (r *run) formatBraces(s string, args []any, kw keywords) string {
	var b strings.Builder
	automatic := 0
	for s != "" {
		at := strings.IndexAny(s, "{}")
		if at < 0 {
			r.put(&b, s)
			break
		}
		r.put(&b, s[:at])
		if strings.HasPrefix(s[at:], "{{") || strings.HasPrefix(s[at:], "}}") {
			r.put(&b, s[at:at+1])
			s = s[at+2:]
			continue
		}
		end := strings.IndexByte(s[at:], '}')
		if s[at] == '}' || end < 0 {
			r.fail("a single brace in a format")
		}
		field := s[at+1 : at+end]
		s = s[at+end+1:]
		if strings.ContainsAny(field, "!:.[{") {
			r.unsupported("a format with conversions, attributes or specifications")
		}
		place := -1
		switch {
		case field == "":
			if automatic < 0 {
				r.fail("numbered and automatic fields in one format")
			}
			place = automatic
			automatic++
		case field[0] >= '0' && field[0] <= '9':
			if automatic > 0 {
				r.fail("numbered and automatic fields in one format")
			}
			automatic = -1
			if place = 0; len(field) > 6 {
				r.fail("too few arguments for a format")
			}
			for _, c := range field {
				if c < '0' || c > '9' {
					r.fail("a malformed format")
				}
				place = place*10 + int(c-'0')
			}
		}
		var v any
		if place >= 0 {
			if place >= len(args) {
				r.fail("too few arguments for a format")
			}
			v = args[place]
		} else {
			var known bool
			if v, known = kw.get(field); !known {
				r.fail("a format's name is not among the arguments")
			}
		}
		r.put(&b, r.str(v))
	}
	return b.String()
}
