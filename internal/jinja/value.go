package jinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A value is one of: nil (None), bool, int64, float64, string, markup, undefined, and the types
// below by pointer.

// markup is text that |safe or |escape marked.
type markup string

// undefined is what a name without a value has.
type undefined struct{}

// list is a list or a tuple. It never changes.
type list struct {
	items []any
	tuple bool
}

// dict is a dictionary. It never changes once a template sees it.
type dict struct {
	keys, values []any
	places       map[any]int // by hashKey
}

func newDict(size int) *dict {
	return &dict{keys: make([]any, 0, size), values: make([]any, 0, size), places: make(map[any]int, size)}
}

// hashKey is equal for keys that Python takes for the same.
func hashKey(k any) any {
	switch k := k.(type) {
	case bool:
		if k {
			return int64(1)
		}
		return int64(0)
	case float64:
		if i, whole := wholeFloat(k); whole {
			return i
		}
	case markup:
		return string(k)
	}
	return k
}

func (d *dict) set(k, v any) {
	h := hashKey(k)
	if i, known := d.places[h]; known {
		d.values[i] = v
		return
	}
	d.places[h] = len(d.keys)
	d.keys, d.values = append(d.keys, k), append(d.values, v)
}

func (d *dict) get(k any) (any, bool) {
	i, known := d.places[hashKey(k)]
	if !known {
		return nil, false
	}
	return d.values[i], true
}

// hashable refuses a key that a dictionary cannot have.
func (r *run) hashable(k any) {
	switch k := k.(type) {
	case nil, bool, int64, float64, string, markup:
	case *list:
		if k.tuple {
			r.unsupported("a tuple as a key")
		}
		r.fail("a list cannot be a key")
	default:
		r.fail("%s cannot be a key", typeName(k))
	}
}

// hasKey tells whether a value is a key. Those that could be one in Python, and never are here, are
// not.
func (r *run) hasKey(d *dict, v any) bool {
	switch v.(type) {
	case *span, *function, *generator, *loop, *namespace, undefined:
		return false
	}
	r.hashable(v)
	_, known := d.get(v)
	return known
}

// namespace is the one value that a template can change.
type namespace struct{ dict }

// span is a range.
type span struct{ start, stop, step int64 }

func (s *span) len() int64 {
	switch {
	case s.step > 0 && s.start < s.stop:
		return int64((uint64(s.stop)-uint64(s.start)-1)/uint64(s.step)) + 1
	case s.step < 0 && s.start > s.stop:
		return int64((uint64(s.start)-uint64(s.stop)-1)/uint64(-s.step)) + 1
	}
	return 0
}

// view is what a dictionary's keys, values and items methods give.
type view struct {
	of   string // "keys", "values" or "items"
	dict *dict
}

func (v *view) items(r *run) []any {
	switch v.of {
	case "keys":
		return v.dict.keys
	case "values":
		return v.dict.values
	}
	r.takeItems(5 * len(v.dict.keys))
	pairs := make([]any, len(v.dict.keys))
	for i, k := range v.dict.keys {
		pairs[i] = &list{items: []any{k, v.dict.values[i]}, tuple: true}
	}
	return pairs
}

// generator gives its items once. Only run.iter calls next.
type generator struct {
	next func() (any, bool)
}

// function is what can be called.
type function struct {
	name  string
	macro *macro // for a macro
	call  func(r *run, args []any, kw keywords) any
}

// keywords are named arguments, in order.
type keywords struct {
	names  []string
	values []any
}

func (k keywords) get(name string) (any, bool) {
	for i, n := range k.names {
		if n == name {
			return k.values[i], true
		}
	}
	return nil, false
}

// pop takes an argument out. What others hold of the keywords stays as it is.
func (k *keywords) pop(name string) (any, bool) {
	for i, n := range k.names {
		if n == name {
			v := k.values[i]
			k.names, k.values = slices.Delete(slices.Clone(k.names), i, i+1), slices.Delete(slices.Clone(k.values), i, i+1)
			return v, true
		}
	}
	return nil, false
}

// loop is a for loop's variable of that name. It reads one item ahead only where a template asks
// for it, as Jinja2.
type loop struct {
	over    any
	next    func() (any, bool)
	again   func(over any) any // of a recursive loop
	depth0  int64
	index0  int64
	length  int64
	counted bool

	before, current, after any
	ahead, ended, started  bool // after is read; there is none; there is a current item
	lastChanged            any
	hasChanged             bool
	hasBefore              bool
}

func (l *loop) peek() (any, bool) {
	if !l.ahead && !l.ended {
		var more bool
		if l.after, more = l.next(); more {
			l.ahead = true
		} else {
			l.ended = true
		}
	}
	return l.after, l.ahead
}

func (l *loop) advance(r *run) bool {
	item, more := l.peek()
	if !more {
		return false
	}
	l.ahead, l.after = false, nil
	l.hasBefore, l.before = l.started, l.current
	l.started, l.current = true, item
	l.index0++
	r.step(1)
	return true
}

func (l *loop) len(r *run) int64 {
	if l.counted {
		return l.length
	}
	l.counted = true
	if n, sized := r.size(l.over); sized {
		l.length = n
		return n
	}
	var rest []any
	for {
		item, more := l.next()
		if !more {
			break
		}
		r.takeItems(1)
		rest = append(rest, item)
	}
	l.length = l.index0 + 1 + int64(len(rest))
	if l.ahead {
		l.length++
	}
	l.next = each(rest)
	return l.length
}

func each(items []any) func() (any, bool) {
	i := 0
	return func() (any, bool) {
		if i == len(items) {
			return nil, false
		}
		i++
		return items[i-1], true
	}
}

func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		return "a boolean"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case string, markup:
		return "a string"
	case undefined:
		return "what is not defined"
	case *list:
		if v.tuple {
			return "a tuple"
		}
		return "a list"
	case *dict:
		return "a dictionary"
	case *namespace:
		return "a namespace"
	case *span:
		return "a range"
	case *view:
		return "a view of a dictionary"
	case *generator:
		return "a generator"
	case *function:
		return "a function"
	}
	return "a loop"
}

// asString is a string's or a marked text's characters.
func asString(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// asInt is an integer's or a boolean's value.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

func asFloat(v any) (float64, bool) {
	if f, is := v.(float64); is {
		return f, true
	}
	i, is := asInt(v)
	return float64(i), is
}

func wholeFloat(f float64) (int64, bool) {
	if f >= -0x1p63 && f < 0x1p63 && f == math.Trunc(f) {
		return int64(f), true
	}
	return 0, false
}

// truth is Python's bool.
func (r *run) truth(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case *loop:
		return v.len(r) > 0
	}
	if s, is := asString(v); is {
		return s != ""
	}
	if n, sized := r.size(v); sized {
		return n > 0
	}
	return true
}

// size is Python's len, for what has one.
func (r *run) size(v any) (int64, bool) {
	switch v := v.(type) {
	case undefined:
		return 0, true
	case *list:
		return int64(len(v.items)), true
	case *dict:
		return int64(len(v.keys)), true
	case *view:
		return int64(len(v.dict.keys)), true
	case *span:
		return v.len(), true
	case *loop:
		return v.len(r), true
	}
	if s, is := asString(v); is {
		r.read(len(s))
		return int64(utf8.RuneCountInString(s)), true
	}
	return 0, false
}

func iterable(v any) bool {
	switch v.(type) {
	case nil, bool, int64, float64, *function, *namespace:
		return false
	}
	return true
}

// iter walks over a value's items. Each item is counted.
func (r *run) iter(v any) func() (any, bool) {
	var next func() (any, bool)
	switch v := v.(type) {
	case undefined:
		return func() (any, bool) { return nil, false }
	case *list:
		next = each(v.items)
	case *dict:
		next = each(v.keys)
	case *view:
		next = each(v.items(r))
	case *span:
		i, n := int64(0), v.len()
		next = func() (any, bool) {
			if i == n {
				return nil, false
			}
			i++
			return v.start + (i-1)*v.step, true
		}
	case *generator:
		next = func() (any, bool) {
			r.enter()
			defer r.leave()
			return v.next()
		}
	case *loop:
		r.unsupported("iterating over a loop")
	case string, markup:
		s, _ := asString(v)
		next = func() (any, bool) {
			if s == "" {
				return nil, false
			}
			_, n := utf8.DecodeRuneInString(s)
			c := s[:n]
			s = s[n:]
			return c, true
		}
	default:
		r.fail("%s has no items to iterate over", typeName(v))
	}
	return func() (any, bool) {
		r.step(1)
		return next()
	}
}

// list is a new list of a value's items.
func (r *run) list(v any) []any {
	if l, is := v.(*list); is {
		r.takeItems(len(l.items))
		return slices.Clone(l.items)
	}
	var items []any
	for next := r.iter(v); ; {
		item, more := next()
		if !more {
			return items
		}
		r.takeItems(1)
		items = append(items, item)
	}
}

// str is Python's str.
func (r *run) str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case undefined:
		return ""
	}
	return r.repr(v)
}

func (r *run) repr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return floatRepr(v)
	case undefined:
		return "Undefined"
	}
	var b strings.Builder
	r.writeRepr(&b, v)
	return b.String()
}

func (r *run) put(b *strings.Builder, s string) {
	r.take(len(s))
	b.WriteString(s)
}

func (r *run) writeRepr(b *strings.Builder, v any) {
	r.enter()
	defer r.leave()
	r.step(1)
	many := func(open, close string, items []any) {
		r.put(b, open)
		for i, item := range items {
			if i > 0 {
				r.put(b, ", ")
			}
			r.writeRepr(b, item)
		}
		r.put(b, close)
	}
	pairs := func(open, close string, d *dict) {
		r.put(b, open)
		for i, k := range d.keys {
			if i > 0 {
				r.put(b, ", ")
			}
			r.writeRepr(b, k)
			r.put(b, ": ")
			r.writeRepr(b, d.values[i])
		}
		r.put(b, close)
	}
	switch v := v.(type) {
	case string:
		r.put(b, r.quote(v))
	case markup:
		r.unsupported("the representation of text marked as safe")
	case *list:
		switch {
		case v.tuple && len(v.items) == 1:
			many("(", ",)", v.items)
		case v.tuple:
			many("(", ")", v.items)
		default:
			many("[", "]", v.items)
		}
	case *dict:
		pairs("{", "}", v)
	case *namespace:
		pairs("<Namespace {", "}>", &v.dict)
	case *view:
		many("dict_"+v.of+"([", "])", v.items(r))
	case *span:
		text := "range(" + r.repr(v.start) + ", " + r.repr(v.stop)
		if v.step != 1 {
			text += ", " + r.repr(v.step)
		}
		r.put(b, text+")")
	case *loop:
		r.put(b, "<LoopContext "+r.repr(v.index0+1)+"/"+r.repr(v.len(r))+">")
	case *generator, *function:
		r.unsupported("the text of %s", typeName(v))
	default:
		r.put(b, r.repr(v))
	}
}

// quote is Python's representation of a string.
func (r *run) quote(s string) string {
	r.read(len(s))
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var b strings.Builder
	b.WriteByte(quote)
	for _, c := range s {
		switch {
		case c == rune(quote) || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == ' ' || unicode.IsPrint(c):
			b.WriteRune(c)
		case c < 0x100:
			b.WriteString(`\x` + hexDigits(c, 2))
		case c < 0x10000:
			b.WriteString(`\u` + hexDigits(c, 4))
		default:
			b.WriteString(`\U` + hexDigits(c, 8))
		}
	}
	b.WriteByte(quote)
	return b.String()
}

func hexDigits(c rune, n int) string {
	s := strconv.FormatInt(int64(c), 16)
	return strings.Repeat("0", max(n-len(s), 0)) + s
}

// floatRepr is Python's: the shortest digits that give the same float.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	exponent, _ := strconv.Atoi(s[strings.IndexByte(s, 'e')+1:])
	if exponent < -4 || exponent >= 16 {
		return s
	}
	s = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// equal is Python's ==.
func (r *run) equal(a, b any) bool {
	r.enter()
	defer r.leave()
	r.step(1)
	if x, is := asFloat(a); is {
		y, is := asFloat(b)
		if !is {
			return false
		}
		i, first := asInt(a)
		j, second := asInt(b)
		switch {
		case first && second:
			return i == j
		case first: // and b is a float
			whole, is := wholeFloat(y)
			return is && whole == i
		case second:
			whole, is := wholeFloat(x)
			return is && whole == j
		}
		return x == y
	}
	if x, is := asString(a); is {
		y, is := asString(b)
		r.read(min(len(x), len(y)))
		return is && x == y
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case undefined:
		_, is := b.(undefined)
		return is
	case *list:
		b, is := b.(*list)
		if !is || a.tuple != b.tuple || len(a.items) != len(b.items) {
			return false
		}
		for i := range a.items {
			if !r.equal(a.items[i], b.items[i]) {
				return false
			}
		}
		return true
	case *dict:
		b, is := b.(*dict)
		if !is || len(a.keys) != len(b.keys) {
			return false
		}
		for i, k := range a.keys {
			v, known := b.get(k)
			if !known || !r.equal(a.values[i], v) {
				return false
			}
		}
		return true
	case *span, *view:
		switch b.(type) {
		case *span, *view:
			r.unsupported("comparing %s", typeName(a))
		}
		return false
	}
	return a == b
}

// less is Python's <.
func (r *run) less(a, b any) bool {
	r.enter()
	defer r.leave()
	r.step(1)
	if x, is := asFloat(a); is {
		if y, is := asFloat(b); is {
			i, first := asInt(a)
			j, second := asInt(b)
			if first && second {
				return i < j
			}
			const exact = 1 << 53
			if first && (i > exact || i < -exact) || second && (j > exact || j < -exact) {
				r.unsupported("comparing a float with an integer beyond 53 bits")
			}
			return x < y
		}
	}
	if x, is := asString(a); is {
		if y, is := asString(b); is {
			r.read(min(len(x), len(y)))
			return x < y
		}
	}
	if x, is := a.(*list); is {
		if y, is := b.(*list); is && x.tuple == y.tuple {
			for i := range min(len(x.items), len(y.items)) {
				if !r.equal(x.items[i], y.items[i]) {
					return r.less(x.items[i], y.items[i])
				}
			}
			return len(x.items) < len(y.items)
		}
	}
	r.fail("%s and %s cannot be ordered", typeName(a), typeName(b))
	return false
}

// contains is Python's in.
func (r *run) contains(container, v any) bool {
	switch c := container.(type) {
	case string, markup:
		s, _ := asString(c)
		part, is := asString(v)
		if !is {
			r.fail("%s is looked for in a string", typeName(v))
		}
		r.read(len(s) + len(part))
		return strings.Contains(s, part)
	case *dict:
		return r.hasKey(c, v)
	case *view:
		if c.of == "keys" {
			return r.hasKey(c.dict, v)
		}
	case *span:
		if f, is := asFloat(v); is {
			i, whole := asInt(v)
			if !whole {
				if i, whole = wholeFloat(f); !whole {
					return false
				}
			}
			if c.step > 0 && (i < c.start || i >= c.stop) || c.step < 0 && (i > c.start || i <= c.stop) {
				return false
			}
			return (i-c.start)%c.step == 0
		}
		return false
	}
	for next := r.iter(container); ; {
		item, more := next()
		if !more {
			return false
		}
		if item == nil && v == nil || r.equal(item, v) {
			return true
		}
	}
}
