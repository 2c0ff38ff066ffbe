package jinja

import (
	"slices"
	"strings"
)

// missing marks an argument that was not given.
type missing struct{}

// bind gives each parameter its argument, or missing{}. A parameter whose name begins with "/" is
// positional only.
func (r *run) bind(args []any, kw keywords, required int, params ...string) []any {
	if len(args) > len(params) {
		r.fail("too many arguments: %d, want at most %d", len(args), len(params))
	}
	bound := make([]any, len(params))
	for i, p := range params {
		v, named := any(nil), false
		if !strings.HasPrefix(p, "/") {
			v, named = kw.pop(p)
		}
		switch {
		case i < len(args) && named:
			r.fail("an argument is given twice")
		case i < len(args):
			bound[i] = args[i]
		case named:
			bound[i] = v
		case i < required:
			r.fail("too few arguments, want at least %d", required)
		default:
			bound[i] = missing{}
		}
	}
	if len(kw.names) > 0 {
		r.fail("an argument of an unknown name")
	}
	return bound
}

func given(v any) bool { _, absent := v.(missing); return !absent }

// intOr, textOr and truthOr read an argument of a type, or give what stands for one that is
// missing.
func (r *run) intOr(v any, standard int64) int64 {
	if !given(v) {
		return standard
	}
	i, is := asInt(v)
	if !is {
		r.fail("%s is given, want an integer", typeName(v))
	}
	return i
}

func (r *run) textOr(v any, standard string) string {
	if !given(v) {
		return standard
	}
	s, is := v.(string)
	if !is {
		r.fail("%s is given, want a string", typeName(v))
	}
	return s
}

func (r *run) truthOr(v any, standard bool) bool {
	if !given(v) {
		return standard
	}
	return r.truth(v)
}

// pythonAttributes are what Python's types have beside what this package implements. The sandbox
// forbids some of them.
var pythonAttributes = map[string]string{
	"an integer":             "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag is_integer numerator real to_bytes",
	"a boolean":              "as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag is_integer numerator real to_bytes",
	"a float":                "as_integer_ratio conjugate fromhex hex imag is_integer real",
	"a string":               "encode expandtabs format_map isascii isidentifier isprintable istitle maketrans translate",
	"a list":                 "append clear copy extend insert pop remove reverse sort",
	"a tuple":                "",
	"a dictionary":           "clear fromkeys pop popitem setdefault update",
	"a range":                "count index",
	"a view of a dictionary": "isdisjoint mapping",
	"a generator":            "close gi_code gi_frame gi_running gi_suspended gi_yieldfrom send throw",
}

// attribute is v.name: an attribute as Python has it, or else an item.
func (r *run) attribute(v any, name string) any {
	r.step(1)
	switch v := v.(type) {
	case undefined:
		r.fail("an attribute of what is not defined")
	case *dict:
		if m, known := dictMethods[name]; known {
			return method(v, m)
		}
		if !slices.Contains(strings.Fields(pythonAttributes["a dictionary"]), name) {
			if found, known := v.get(name); known {
				return found
			}
		}
	case *namespace:
		if found, known := v.get(name); known {
			return found
		}
	case string:
		if m, known := stringMethods[name]; known {
			return method(v, m)
		}
	case markup:
		r.unsupported("an attribute of text marked as safe")
	case *list:
		if m, known := listMethods[name]; known {
			return method(v, m)
		}
	case *span:
		switch name {
		case "start":
			return v.start
		case "stop":
			return v.stop
		case "step":
			return v.step
		}
	case *loop:
		if found, known := r.loopAttribute(v, name); known {
			return found
		}
	case *function:
		if v.macro == nil || name != "name" {
			r.unsupported("an attribute of a function")
		}
		return v.name
	}
	if strings.HasPrefix(name, "__") {
		r.fail("an internal attribute is not to be read")
	}
	if slices.Contains(strings.Fields(pythonAttributes[typeName(v)]), name) {
		r.fail("the attribute %q of %s: not supported, or forbidden by the sandbox", name, typeName(v))
	}
	return undefined{}
}

func method[T any](v T, m func(r *run, v T, args []any, kw keywords) any) *function {
	return &function{call: func(r *run, args []any, kw keywords) any { return m(r, v, args, kw) }}
}

func (r *run) loopAttribute(l *loop, name string) (any, bool) {
	switch name {
	case "index":
		return l.index0 + 1, true
	case "index0":
		return l.index0, true
	case "length":
		return l.len(r), true
	case "revindex":
		return l.len(r) - l.index0, true
	case "revindex0":
		return l.len(r) - l.index0 - 1, true
	case "first":
		return l.index0 == 0, true
	case "last":
		_, more := l.peek()
		return !more, true
	case "depth":
		return l.depth0 + 1, true
	case "depth0":
		return l.depth0, true
	case "previtem":
		if !l.hasBefore {
			return undefined{}, true
		}
		return l.before, true
	case "nextitem":
		if item, more := l.peek(); more {
			return item, true
		}
		return undefined{}, true
	case "cycle":
		return &function{call: func(r *run, args []any, kw keywords) any {
			r.bind(nil, kw, 0)
			if len(args) == 0 {
				r.fail("no items to cycle through")
			}
			return args[l.index0%int64(len(args))]
		}}, true
	case "changed":
		return &function{call: func(r *run, args []any, kw keywords) any {
			r.bind(nil, kw, 0)
			now := &list{items: args, tuple: true}
			if l.hasChanged && r.equal(l.lastChanged, now) {
				return false
			}
			l.hasChanged, l.lastChanged = true, now
			return true
		}}, true
	}
	return nil, false
}

var dictMethods map[string]func(r *run, d *dict, args []any, kw keywords) any

var listMethods map[string]func(r *run, l *list, args []any, kw keywords) any

func init() {
	look := func(of string) func(r *run, d *dict, args []any, kw keywords) any {
		return func(r *run, d *dict, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			return &view{of, d}
		}
	}
	dictMethods = map[string]func(r *run, d *dict, args []any, kw keywords) any{
		"items": look("items"), "keys": look("keys"), "values": look("values"),
		"get": func(r *run, d *dict, args []any, kw keywords) any {
			a := r.bind(args, kw, 1, "/key", "/default")
			r.hashable(a[0])
			if v, known := d.get(a[0]); known {
				return v
			}
			if given(a[1]) {
				return a[1]
			}
			return nil
		},
		"copy": func(r *run, d *dict, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			return d
		},
	}
	listMethods = map[string]func(r *run, l *list, args []any, kw keywords) any{
		"index": func(r *run, l *list, args []any, kw keywords) any {
			a := r.bind(args, kw, 1, "/value")
			for i, v := range l.items {
				if r.equal(v, a[0]) {
					return int64(i)
				}
			}
			r.fail("a value is not in the list")
			return nil
		},
		"count": func(r *run, l *list, args []any, kw keywords) any {
			a := r.bind(args, kw, 1, "/value")
			n := int64(0)
			for _, v := range l.items {
				if r.equal(v, a[0]) {
					n++
				}
			}
			return n
		},
	}
}
