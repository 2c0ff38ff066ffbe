package jinja

import (
	"slices"
	"strings"
	"unicode"
)

type checkFunc = func(r *run, v any, args []any, kw keywords) bool

// checks are Jinja2's tests, by name.
var checks map[string]checkFunc

// unsupportedChecks are those of Jinja2 that this package does not have: none.
var unsupportedChecks []string

func init() {
	plain := func(is func(r *run, v any) bool) checkFunc {
		return func(r *run, v any, args []any, kw keywords) bool {
			r.bind(args, kw, 0)
			return is(r, v)
		}
	}
	compare := func(op string) checkFunc {
		return func(r *run, v any, args []any, kw keywords) bool {
			return r.compareOp(op, v, r.bind(args, kw, 1, "/other")[0])
		}
	}
	remainder := func(r *run, v any, by any) int64 {
		m, is := asInt(r.binary("%", v, by))
		if !is {
			f, is := r.binary("%", v, by).(float64)
			if whole, exact := wholeFloat(f); is && exact {
				return whole
			}
			return -1
		}
		return m
	}
	isDefined := func(v any) bool { _, absent := v.(undefined); return !absent }
	ofType := func(is func(v any) bool) checkFunc {
		return plain(func(_ *run, v any) bool { return is(v) })
	}
	checks = map[string]checkFunc{
		"defined":   ofType(isDefined),
		"undefined": ofType(func(v any) bool { return !isDefined(v) }),
		"none":      ofType(func(v any) bool { return v == nil }),
		"boolean":   ofType(func(v any) bool { _, is := v.(bool); return is }),
		"true":      ofType(func(v any) bool { return v == true }),
		"false":     ofType(func(v any) bool { return v == false }),
		"integer":   ofType(func(v any) bool { _, is := v.(int64); return is }),
		"float":     ofType(func(v any) bool { _, is := v.(float64); return is }),
		"number": ofType(func(v any) bool {
			_, is := asFloat(v)
			return is
		}),
		"string": ofType(func(v any) bool { _, is := asString(v); return is }),
		"mapping": ofType(func(v any) bool {
			_, is := v.(*dict)
			return is
		}),
		"sequence": ofType(func(v any) bool {
			switch v.(type) { // what has a length and items by []
			case string, markup, *list, *dict, *span, undefined:
				return true
			}
			return false
		}),
		"iterable": ofType(iterable),
		"callable": ofType(func(v any) bool {
			switch v.(type) { // Undefined, too, has a __call__
			case *function, *loop, undefined:
				return true
			}
			return false
		}),
		"escaped": ofType(func(v any) bool { _, is := v.(markup); return is }),
		"even":    plain(func(r *run, v any) bool { return remainder(r, v, int64(2)) == 0 }),
		"odd":     plain(func(r *run, v any) bool { return remainder(r, v, int64(2)) == 1 }),
		"divisibleby": func(r *run, v any, args []any, kw keywords) bool {
			return remainder(r, v, r.bind(args, kw, 1, "num")[0]) == 0
		},
		"lower": plain(func(r *run, v any) bool {
			s := r.softText(v)
			return cased(s, unicode.IsLower, unicode.IsUpper)
		}),
		"upper": plain(func(r *run, v any) bool {
			s := r.softText(v)
			return cased(s, unicode.IsUpper, unicode.IsLower)
		}),
		"in": func(r *run, v any, args []any, kw keywords) bool {
			return r.contains(r.bind(args, kw, 1, "seq")[0], v)
		},
		"sameas": func(r *run, v any, args []any, kw keywords) bool {
			other := r.bind(args, kw, 1, "other")[0]
			for _, x := range []any{v, other} {
				switch x.(type) {
				case nil, bool, *list, *dict, *namespace, *function:
					return v == other
				}
			}
			r.unsupported("the test %q of %s and %s", "sameas", typeName(v), typeName(other))
			return false
		},
		"filter": plain(func(r *run, v any) bool {
			s, is := v.(string)
			if i := slices.Index(unsupportedFilters, s); i >= 0 {
				r.unsupported("asking for the filter %q", unsupportedFilters[i])
			}
			_, known := filters[s]
			return is && known
		}),
		"test": ofType(func(v any) bool {
			s, is := v.(string)
			_, known := checks[s]
			return is && known
		}),
	}
	for op, names := range map[string]string{
		"==": "== eq equalto", "!=": "!= ne", "<": "< lt lessthan", "<=": "<= le", ">": "> gt greaterthan", ">=": ">= ge",
	} {
		for n := range strings.FieldsSeq(names) {
			checks[n] = compare(op)
		}
	}
}
