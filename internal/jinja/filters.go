package jinja

import (
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type filterFunc = func(r *run, v any, args []any, kw keywords) any

// filters are Jinja2's, by name, and transformers' tojson.
var filters map[string]filterFunc

// unsupportedFilters are those of Jinja2 that this package does not have.
var unsupportedFilters = []string{
	"filesizeformat", "forceescape", "groupby", "pprint", "random", "striptags", "truncate", "urlencode", "urlize", "wordwrap", "xmlattr",
}

func init() {
	onText := func(f func(r *run, s string) any) filterFunc {
		return func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			return f(r, r.softText(v))
		}
	}
	size := func(r *run, v any, args []any, kw keywords) any {
		r.bind(args, kw, 0)
		n, sized := r.size(v)
		if !sized {
			r.fail("%s has no length", typeName(v))
		}
		return n
	}
	standard := func(r *run, v any, args []any, kw keywords) any {
		a := r.bind(args, kw, 0, "default_value", "boolean")
		_, absent := v.(undefined)
		if !absent && !(r.truthOr(a[1], false) && !r.truth(v)) {
			return v
		}
		if given(a[0]) {
			return a[0]
		}
		return ""
	}
	escape := func(r *run, v any, args []any, kw keywords) any {
		r.bind(args, kw, 0)
		if m, is := v.(markup); is {
			return m
		}
		s := r.str(v)
		r.take(6 * len(s))
		return markup(htmlEscaper.Replace(s))
	}
	extreme := func(better func(r *run, a, b any) bool) filterFunc {
		return func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "case_sensitive", "attribute")
			get := r.getter(a[1], r.truthOr(a[0], false), missing{})
			var best, bestKey any = undefined{}, nil
			first := true
			for next := r.iter(v); ; first = false {
				item, more := next()
				if !more {
					return best
				}
				if key := get(item); first || better(r, key, bestKey) {
					best, bestKey = item, key
				}
			}
		}
	}
	choose := func(keep, attribute bool) filterFunc {
		return func(r *run, v any, args []any, kw keywords) any { return r.choose(v, args, kw, keep, attribute) }
	}
	filters = map[string]filterFunc{
		"abs": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			if f, is := v.(float64); is {
				return math.Abs(f)
			}
			i, is := asInt(v)
			if !is {
				r.fail("%s has no absolute value", typeName(v))
			}
			if i < 0 {
				return r.sign(i, true)
			}
			return i
		},
		"attr": func(r *run, v any, args []any, kw keywords) any {
			name := r.textOr(r.bind(args, kw, 1, "name")[0], "")
			if d, is := v.(*dict); is && dictMethods[name] == nil {
				if _, known := d.get(name); known {
					return undefined{} // a key is no attribute
				}
			}
			return r.attribute(v, name)
		},
		"batch":      func(r *run, v any, args []any, kw keywords) any { return r.batch(v, args, kw) },
		"slice":      func(r *run, v any, args []any, kw keywords) any { return r.columns(v, args, kw) },
		"capitalize": onText(func(r *run, s string) any { return r.titled(s) }),
		"center": func(r *run, v any, args []any, kw keywords) any {
			return r.pad(r.softText(v), r.intOr(r.bind(args, kw, 0, "width")[0], 80), missing{}, true, true)
		},
		"count": size, "length": size,
		"d": standard, "default": standard,
		"dictsort": func(r *run, v any, args []any, kw keywords) any { return r.dictSort(v, args, kw) },
		"e":        escape, "escape": escape,
		"first": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			if item, more := r.iter(v)(); more {
				return item
			}
			return undefined{}
		},
		"last": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			switch v.(type) {
			case *generator, *loop, nil, bool, int64, float64:
				r.fail("%s cannot be read from its end", typeName(v))
			}
			items := r.list(v)
			if len(items) == 0 {
				return undefined{}
			}
			return items[len(items)-1]
		},
		"float": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "default")
			if f, ok := r.toFloat(v); ok {
				return f
			}
			if given(a[0]) {
				return a[0]
			}
			return 0.0
		},
		"int": func(r *run, v any, args []any, kw keywords) any { return r.toInt(v, args, kw) },
		"format": func(r *run, v any, args []any, kw keywords) any {
			if len(kw.names) > 0 {
				if len(args) > 0 {
					r.fail("a format takes values either by place or by name")
				}
				d := newDict(len(kw.names))
				for i, n := range kw.names {
					d.set(n, kw.values[i])
				}
				return r.format(r.softText(v), d)
			}
			return r.format(r.softText(v), &list{items: args, tuple: true})
		},
		"indent": func(r *run, v any, args []any, kw keywords) any { return r.indent(v, args, kw) },
		"items": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			switch v := v.(type) {
			case undefined:
				return lazy(each(nil))
			case *dict:
				return lazy(each((&view{"items", v}).items(r)))
			}
			return lazy(func() (any, bool) {
				r.fail("the items of %s, which is no dictionary", typeName(v))
				return nil, false
			})
		},
		"join": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "d", "attribute")
			separator := ""
			if given(a[0]) {
				separator = r.str(a[0])
			}
			get := r.getter(a[1], true, missing{})
			return r.join(separator, r.list(v), func(item any) string { return r.str(get(item)) })
		},
		"list": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			return &list{items: r.list(v)}
		},
		"lower":  onText(func(r *run, s string) any { return r.lower(s) }),
		"upper":  onText(func(r *run, s string) any { return r.upper(s) }),
		"map":    func(r *run, v any, args []any, kw keywords) any { return r.mapped(v, args, kw) },
		"max":    extreme(func(r *run, a, b any) bool { return r.less(b, a) }),
		"min":    extreme(func(r *run, a, b any) bool { return r.less(a, b) }),
		"select": choose(true, false), "reject": choose(false, false),
		"selectattr": choose(true, true), "rejectattr": choose(false, true),
		"replace": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 2, "old", "new", "count")
			n := int64(-1)
			if given(a[2]) && a[2] != nil {
				n = r.intOr(a[2], -1)
			}
			return r.replace(r.str(v), r.str(a[0]), r.str(a[1]), n)
		},
		"reverse": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			if _, is := v.(markup); is {
				r.unsupported("reversing text marked as safe")
			}
			if s, is := v.(string); is {
				r.take(5 * len(s))
				c := []rune(s)
				slices.Reverse(c)
				return string(c)
			}
			items := r.list(v)
			slices.Reverse(items)
			switch v.(type) {
			case *list, *dict, *view, *span, undefined:
				return lazy(each(items))
			}
			return &list{items: items}
		},
		"round": func(r *run, v any, args []any, kw keywords) any { return r.round(v, args, kw) },
		"safe": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			return markup(r.str(v))
		},
		"sort": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "reverse", "case_sensitive", "attribute")
			attributes := []any{a[2]}
			if s, is := a[2].(string); is {
				attributes = texts(strings.Split(s, ",")).items
			}
			gets := make([]func(any) any, len(attributes))
			for i, name := range attributes {
				gets[i] = r.getter(name, r.truthOr(a[1], false), missing{})
			}
			return &list{items: r.sorted(r.list(v), r.intOr(a[0], 0) != 0, func(item any) any {
				keys := make([]any, len(gets))
				for i, get := range gets {
					keys[i] = get(item)
				}
				return &list{items: keys}
			})}
		},
		"string": func(r *run, v any, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			if m, is := v.(markup); is {
				return m
			}
			return r.str(v)
		},
		"sum": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "attribute", "start")
			get := r.getter(a[0], true, missing{})
			var total any = int64(0)
			if given(a[1]) {
				total = a[1]
			}
			if _, is := total.(string); is {
				r.fail("a string cannot begin a sum")
			}
			for next := r.iter(v); ; {
				item, more := next()
				if !more {
					return total
				}
				total = r.binary("+", total, get(item))
			}
		},
		"title": onText(func(r *run, s string) any {
			r.take(len(s))
			var b strings.Builder
			for s != "" {
				is := strings.ContainsRune
				separates := func(c rune) bool { return isSpace(c) || is("-({[<", c) }
				first, _ := utf8.DecodeRuneInString(s)
				end := strings.IndexFunc(s, func(c rune) bool { return separates(c) != separates(first) })
				if end < 0 {
					end = len(s)
				}
				_, n := utf8.DecodeRuneInString(s)
				b.WriteString(r.upper(s[:n]))
				b.WriteString(r.lower(s[n:end]))
				s = s[end:]
			}
			return b.String()
		}),
		"tojson": func(r *run, v any, args []any, kw keywords) any { return r.toJSON(v, args, kw) },
		"trim": func(r *run, v any, args []any, kw keywords) any {
			s := r.strip(r.softText(v), r.bind(args, kw, 0, "chars")[0], true, true)
			if _, is := v.(markup); is {
				return markup(s)
			}
			return s
		},
		"unique": func(r *run, v any, args []any, kw keywords) any {
			a := r.bind(args, kw, 0, "case_sensitive", "attribute")
			seen := newDict(0)
			return deferred(func() func() (any, bool) {
				get, next := r.getter(a[1], r.truthOr(a[0], false), missing{}), r.iter(v)
				return func() (any, bool) {
					for {
						item, more := next()
						if !more {
							return nil, false
						}
						key := get(item)
						if _, is := key.(undefined); is {
							key = undefined{}
						} else {
							r.hashable(key)
						}
						if _, known := seen.get(key); !known {
							r.takeItems(6)
							seen.set(key, nil)
							return item, true
						}
					}
				}
			})
		},
		"wordcount": onText(func(r *run, s string) any {
			r.read(len(s))
			return int64(len(strings.FieldsFunc(s, func(c rune) bool {
				return c != '_' && !unicode.IsLetter(c) && !unicode.IsNumber(c)
			})))
		}),
	}
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", `"`, "&#34;")

func lazy(next func() (any, bool)) *generator { return &generator{next: next} }

// deferred is a generator whose code begins to run when its first item is asked for, as all of
// Python's do.
func deferred(begin func() (next func() (any, bool))) *generator {
	var next func() (any, bool)
	return lazy(func() (any, bool) {
		if next == nil {
			next = begin()
		}
		return next()
	})
}

// softText is the text that a filter for strings works on. Jinja2 keeps the mark of marked text,
// which only trim does here.
func (r *run) softText(v any) string {
	s := r.str(v)
	r.read(len(s))
	return s
}

// getter reads an attribute's value: "a.b.0", an integer, or the item itself where no attribute is
// given.
func (r *run) getter(attribute any, caseSensitive bool, standard any) func(any) any {
	var parts []any
	switch a := attribute.(type) {
	case missing, nil:
	case string:
		r.takeItems(2 * strings.Count(a, "."))
		for _, part := range strings.Split(a, ".") {
			if n, err := strconv.ParseInt(part, 10, 64); err == nil && part[0] != '-' && part[0] != '+' {
				parts = append(parts, n)
			} else {
				parts = append(parts, part)
			}
		}
	case int64, bool:
		parts = []any{a}
	default:
		r.fail("an attribute's name is %s", typeName(a))
	}
	return func(item any) any {
		for _, p := range parts {
			item = r.item(item, p)
			if _, absent := item.(undefined); absent && given(standard) && standard != nil {
				item = standard
			}
		}
		if s, is := item.(string); is && !caseSensitive {
			return r.lower(s)
		}
		return item
	}
}

// sorted sorts by keys, and keeps the order of equal ones, in reverse too.
func (r *run) sorted(items []any, reverse bool, key func(any) any) []any {
	r.takeItems(3 * len(items))
	type entry struct{ key, item any }
	entries := make([]entry, len(items))
	for i, item := range items {
		entries[i] = entry{key(item), item}
	}
	sort.SliceStable(entries, func(i, j int) bool {
		r.step(1)
		if reverse {
			return r.less(entries[j].key, entries[i].key)
		}
		return r.less(entries[i].key, entries[j].key)
	})
	out := make([]any, len(items))
	for i, e := range entries {
		out[i] = e.item
	}
	return out
}

func (r *run) dictSort(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 0, "case_sensitive", "by", "reverse")
	by := r.textOr(a[1], "key")
	if by != "key" && by != "value" {
		r.fail("dictsort sorts by %q or %q", "key", "value")
	}
	var pairs []any
	switch v := v.(type) {
	case *dict:
		pairs = (&view{"items", v}).items(r)
	default:
		r.fail("%s is sorted as a dictionary", typeName(v))
	}
	place := 0
	if by == "value" {
		place = 1
	}
	lower := r.getter(nil, r.truthOr(a[0], false), missing{})
	return &list{items: r.sorted(pairs, r.intOr(a[2], 0) != 0, func(pair any) any { return lower(pair.(*list).items[place]) })}
}

func (r *run) mapped(v any, args []any, kw keywords) any {
	return deferred(func() func() (any, bool) {
		if !r.truth(v) {
			return each(nil)
		}
		var f func(any) any
		if len(args) == 0 {
			attribute, named := kw.pop("attribute")
			if !named {
				r.fail("map wants a filter or an attribute")
			}
			standard, named := kw.pop("default")
			if !named {
				standard = missing{}
			}
			r.bind(nil, kw, 0)
			f = r.getter(attribute, true, standard)
		} else {
			name := r.textOr(args[0], "")
			f = func(item any) any { return r.filter(name, item, args[1:], kw) }
		}
		next := r.iter(v)
		return func() (any, bool) {
			item, more := next()
			if !more {
				return nil, false
			}
			return f(item), true
		}
	})
}

func (r *run) choose(v any, args []any, kw keywords, keep, attribute bool) any {
	return deferred(func() func() (any, bool) {
		if !r.truth(v) {
			return each(nil)
		}
		get := func(item any) any { return item }
		args := args
		if attribute {
			if len(args) == 0 {
				r.fail("an attribute's name is missing")
			}
			get, args = r.getter(args[0], true, missing{}), args[1:]
		}
		test := func(item any) bool { return r.truth(item) }
		if len(args) > 0 {
			name := r.textOr(args[0], "")
			test = func(item any) bool { return r.check(name, item, args[1:], kw) }
		}
		next := r.iter(v)
		return func() (any, bool) {
			for {
				item, more := next()
				if !more {
					return nil, false
				}
				if test(get(item)) == keep {
					return item, true
				}
			}
		}
	})
}

func (r *run) batch(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 1, "linecount", "fill_with")
	var next func() (any, bool)
	var n int64
	var waiting []any // the first item of the next batch
	return lazy(func() (any, bool) {
		if next == nil {
			next, n = r.iter(v), r.intOr(a[0], 0)
		}
		batch := waiting
		waiting = nil
		for {
			item, more := next()
			if !more {
				break
			}
			r.takeItems(2)
			if int64(len(batch)) == n {
				waiting = []any{item}
				return &list{items: batch}, true
			}
			batch = append(batch, item)
		}
		if len(batch) == 0 {
			return nil, false
		}
		for given(a[1]) && a[1] != nil && int64(len(batch)) < n {
			r.takeItems(1)
			batch = append(batch, a[1])
		}
		return &list{items: batch}, true
	})
}

func (r *run) columns(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 1, "slices", "fill_with")
	var items []any
	i, n, start := int64(0), int64(-1), 0
	return lazy(func() (any, bool) {
		if n < 0 {
			items = r.list(v)
			if n = r.intOr(a[0], 0); n == 0 {
				r.fail("slice wants at least one slice")
			}
			n = max(n, 0)
		}
		if i == n {
			return nil, false
		}
		size := int64(len(items)) / n
		extra := i < int64(len(items))%n
		if extra {
			size++
		}
		r.takeItems(int(size) + 2)
		part := slices.Clone(items[start : start+int(size)])
		if given(a[1]) && a[1] != nil && !extra {
			part = append(part, a[1])
		}
		i, start = i+1, start+int(size)
		return &list{items: part}, true
	})
}

func (r *run) indent(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 0, "width", "first", "blank")
	s, is := v.(string)
	if !is {
		r.fail("%s is indented, want a string", typeName(v))
	}
	width, is := a[0].(string)
	if !is {
		width = r.pad("", min(r.intOr(a[0], 4), math.MaxInt32), missing{}, false, true)
	}
	lines := r.splitLines(s+"\n", false)
	blank := r.truthOr(a[2], false)
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			r.put(&b, "\n")
		}
		if i > 0 && (blank || line != "") || i == 0 && r.truthOr(a[1], false) {
			r.put(&b, width)
		}
		r.put(&b, line.(string))
	}
	return b.String()
}

func (r *run) round(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 0, "precision", "method")
	precision, method := r.intOr(a[0], 0), r.textOr(a[1], "common")
	if method != "common" && method != "ceil" && method != "floor" {
		r.fail("round has the methods common, ceil and floor")
	}
	if precision < 0 || precision > 300 {
		r.unsupported("rounding to a negative or very large precision")
	}
	f, is := asFloat(v)
	if !is {
		r.fail("%s cannot be rounded", typeName(v))
	}
	if method == "common" {
		if i, is := asInt(v); is {
			return i
		}
		rounded, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(precision), 64), 64)
		return rounded
	}
	scale := math.Pow(10, float64(precision))
	if method == "ceil" {
		return math.Ceil(f*scale) / scale
	}
	return math.Floor(f*scale) / scale
}

// toFloat is Python's float of a number or a text; ok is false where Python objects.
func (r *run) toFloat(v any) (float64, bool) {
	if f, is := asFloat(v); is {
		return f, true
	}
	if _, absent := v.(undefined); absent {
		r.fail("a number of what is not defined")
	}
	s, is := asString(v)
	if !is {
		return 0, false
	}
	r.read(len(s))
	s = strings.TrimFunc(s, isSpace)
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case "inf", "infinity", "nan":
	default:
		for i, c := range s {
			if c >= utf8.RuneSelf && unicode.IsDigit(c) {
				r.unsupported("a number in digits other than 0 to 9")
			}
			between := i > 0 && i+1 < len(s) && s[i-1] >= '0' && s[i-1] <= '9' && s[i+1] >= '0' && s[i+1] <= '9'
			if !strings.ContainsRune("0123456789+-.eE_", c) || c == '_' && !between {
				return 0, false
			}
		}
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return f, err == nil || math.IsInf(f, 0)
}

func (r *run) toInt(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 0, "default", "base")
	base := r.intOr(a[1], 10)
	if i, is := asInt(v); is {
		return i
	}
	if s, is := asString(v); is {
		r.read(len(s))
		if base != 10 && base != 2 && base != 8 && base != 16 {
			r.unsupported("an integer to this base")
		}
		digits := strings.ToLower(strings.TrimFunc(s, isSpace))
		negative := strings.HasPrefix(digits, "-")
		if negative || strings.HasPrefix(digits, "+") {
			digits = digits[1:]
		}
		if prefix := map[int64]string{2: "0b", 8: "0o", 16: "0x"}[base]; prefix != "" && strings.HasPrefix(digits, prefix) {
			digits = strings.TrimPrefix(digits[2:], "_")
		}
		clean := digits != "" && digits[0] != '_' && digits[len(digits)-1] != '_' && !strings.Contains(digits, "__")
		digits = strings.ReplaceAll(digits, "_", "")
		for _, c := range digits {
			if c >= utf8.RuneSelf && unicode.IsDigit(c) {
				r.unsupported("a number in digits other than 0 to 9")
			}
			value := strings.IndexRune("0123456789abcdef", c)
			clean = clean && value >= 0 && int64(value) < base
		}
		if clean {
			if negative {
				digits = "-" + digits
			}
			i, err := strconv.ParseInt(digits, int(base), 64)
			if err != nil {
				r.overflow()
			}
			return i
		}
	}
	if f, ok := r.toFloat(v); ok && !math.IsNaN(f) {
		if math.IsInf(f, 0) {
			if _, is := v.(float64); is {
				r.fail("infinity has no integer")
			}
		} else if i, whole := wholeFloat(math.Trunc(f)); whole {
			return i
		} else {
			r.overflow()
		}
	}
	if given(a[0]) {
		return a[0]
	}
	return int64(0)
}
