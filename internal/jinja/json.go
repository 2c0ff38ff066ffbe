package jinja

import (
	"math"
	"slices"
	"strings"
	"unicode/utf16"
)

// jsonWriter is Python's json.dumps with the options that transformers' tojson has.
type jsonWriter struct {
	r        *run
	b        strings.Builder
	ascii    bool
	sortKeys bool
	indent   string // a level's; pretty tells an empty one from none
	pretty   bool
	item     string // between items
	key      string // between key and value
}

func (r *run) toJSON(v any, args []any, kw keywords) any {
	a := r.bind(args, kw, 0, "ensure_ascii", "indent", "separators", "sort_keys")
	w := &jsonWriter{r: r, ascii: r.truthOr(a[0], false), sortKeys: r.truthOr(a[3], false), item: ", ", key: ": "}
	if given(a[1]) && a[1] != nil {
		w.pretty, w.item = true, ","
		if s, is := a[1].(string); is {
			w.indent = s
		} else {
			w.indent = r.pad("", min(max(r.intOr(a[1], 0), 0), math.MaxInt32), missing{}, false, true)
		}
	}
	if given(a[2]) && a[2] != nil {
		l, is := a[2].(*list)
		if !is || len(l.items) != 2 {
			r.fail("separators must be two strings")
		}
		w.item, w.key = r.textOr(l.items[0], ""), r.textOr(l.items[1], "")
	}
	w.value(v, 0)
	return w.b.String()
}

func (w *jsonWriter) put(s string) { w.r.put(&w.b, s) }

func (w *jsonWriter) line(level int) {
	if w.pretty {
		w.put("\n")
		for range level {
			w.put(w.indent)
		}
	}
}

func (w *jsonWriter) value(v any, level int) {
	w.r.enter()
	defer w.r.leave()
	w.r.step(1)
	if s, is := asString(v); is {
		w.quote(s)
		return
	}
	switch v := v.(type) {
	case nil, bool, int64, float64:
		w.put(jsonScalar(w.r, v))
	case *list:
		if len(v.items) == 0 {
			w.put("[]")
			return
		}
		w.put("[")
		for i, item := range v.items {
			if i > 0 {
				w.put(w.item)
			}
			w.line(level + 1)
			w.value(item, level+1)
		}
		w.line(level)
		w.put("]")
	case *dict:
		if len(v.keys) == 0 {
			w.put("{}")
			return
		}
		order := make([]int, len(v.keys))
		for i := range order {
			order[i] = i
		}
		if w.sortKeys {
			slices.SortStableFunc(order, func(i, j int) int {
				switch {
				case w.r.less(v.keys[i], v.keys[j]):
					return -1
				case w.r.less(v.keys[j], v.keys[i]):
					return 1
				}
				return 0
			})
		}
		w.put("{")
		for n, i := range order {
			if n > 0 {
				w.put(w.item)
			}
			w.line(level + 1)
			if s, is := asString(v.keys[i]); is {
				w.quote(s)
			} else {
				w.quote(jsonScalar(w.r, v.keys[i]))
			}
			w.put(w.key)
			w.value(v.values[i], level+1)
		}
		w.line(level)
		w.put("}")
	default:
		w.r.fail("%s cannot be written as JSON", typeName(v))
	}
}

func jsonScalar(r *run, v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		if v {
			return "true"
		}
		return "false"
	case float64:
		switch {
		case math.IsNaN(v):
			return "NaN"
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		}
	}
	return r.repr(v)
}

func (w *jsonWriter) quote(s string) {
	w.r.take(len(s) + 2)
	b := &w.b
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\f':
			b.WriteString(`\f`)
		case c == '\b':
			b.WriteString(`\b`)
		case c < 0x20 || w.ascii && c >= 0x7f && c < 0x10000:
			w.put(`\u` + hexDigits(c, 4))
		case w.ascii && c >= 0x10000:
			high, low := utf16.EncodeRune(c)
			w.put(`\u` + hexDigits(high, 4) + `\u` + hexDigits(low, 4))
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}
