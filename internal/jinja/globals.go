package jinja

import (
	"fmt"
	"strings"
	"time"
)

// globals are the functions that a template can call, Jinja2's and transformers'.
var globals map[string]*function

// maxRange is the sandbox's limit for a range.
const maxRange = 100_000

func init() {
	globals = map[string]*function{}
	add := func(name string, call func(r *run, args []any, kw keywords) any) {
		globals[name] = &function{name: name, call: call}
	}
	add("range", func(r *run, args []any, kw keywords) any {
		a := r.bind(args, kw, 1, "/start", "/stop", "/step")
		s := &span{0, r.intOr(a[0], 0), r.intOr(a[2], 1)}
		if given(a[1]) {
			s.start, s.stop = s.stop, r.intOr(a[1], 0)
		}
		if s.step == 0 {
			r.fail("a range's step must not be 0")
		}
		for _, bound := range []int64{s.start, s.stop, s.step} {
			if bound > 1<<40 || bound < -1<<40 {
				r.unsupported("a range beyond 40 bits")
			}
		}
		if s.len() > maxRange {
			r.fail("a range is too long, want at most %d numbers", maxRange)
		}
		return s
	})
	add("dict", func(r *run, args []any, kw keywords) any { return r.newDict(args, kw) })
	add("namespace", func(r *run, args []any, kw keywords) any { return &namespace{*r.newDict(args, kw)} })
	add("raise_exception", func(r *run, args []any, kw keywords) any {
		a := r.bind(args, kw, 1, "message")
		panic(stop{&Error{Message: oneLine(r.str(a[0])), Raised: true}})
	})
	add("strftime_now", func(r *run, args []any, kw keywords) any {
		format := r.textOr(r.bind(args, kw, 1, "format")[0], "")
		r.take(32 * len(format))
		text, ok := strftime(r.now(), format)
		if !ok {
			r.unsupported("a date in this format")
		}
		return text
	})
	add("joiner", func(r *run, args []any, kw keywords) any {
		a := r.bind(args, kw, 0, "sep")
		used := false
		return &function{call: func(r *run, args []any, kw keywords) any {
			r.bind(args, kw, 0)
			switch {
			case !used:
				used = true
				return ""
			case given(a[0]):
				return a[0]
			}
			return ", "
		}}
	})
	for _, name := range []string{"cycler", "lipsum"} {
		add(name, func(r *run, _ []any, _ keywords) any {
			r.unsupported("the function %q", name)
			return nil
		})
	}
}

// newDict is Python's dict(mapping or pairs, **names).
func (r *run) newDict(args []any, kw keywords) *dict {
	d := newDict(0)
	if len(args) > 1 {
		r.fail("too many arguments: %d, want at most 1", len(args))
	}
	if len(args) == 1 {
		if source, is := args[0].(*dict); is {
			r.takeItems(6 * len(source.keys))
			for i, k := range source.keys {
				d.set(k, source.values[i])
			}
		} else {
			for next := r.iter(args[0]); ; {
				item, more := next()
				if !more {
					break
				}
				pair := r.list(item)
				if len(pair) != 2 {
					r.fail("a dictionary is made of pairs")
				}
				r.hashable(pair[0])
				r.takeItems(6)
				d.set(pair[0], pair[1])
			}
		}
	}
	r.takeItems(6 * len(kw.names))
	for i, n := range kw.names {
		d.set(n, kw.values[i])
	}
	return d
}

// strftime formats a time as C does in the C locale; what it does not know stays as it is. ok is
// false for the extensions of other kinds that C libraries have.
func strftime(t time.Time, format string) (text string, ok bool) {
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		if strings.IndexByte("_^#0123456789EO:+GgUVWs", format[i]) >= 0 {
			return "", false
		}
		if format[i] == '-' {
			if i+1 == len(format) || strings.IndexByte("dHIjmMSyekl", format[i+1]) < 0 {
				return "", false
			}
			i++
			number := strings.TrimLeft(conversion(t, format[i]), " 0")
			if number == "" {
				number = "0"
			}
			out.WriteString(number)
			continue
		}
		out.WriteString(conversion(t, format[i]))
	}
	return out.String(), true
}

func conversion(t time.Time, c byte) string {
	layouts := map[byte]string{
		'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'h': "Jan", 'c': "Mon Jan _2 15:04:05 2006", 'd': "02", 'D': "01/02/06",
		'e': "_2", 'F': "2006-01-02", 'H': "15", 'I': "03", 'm': "01", 'M': "04", 'p': "PM", 'r': "03:04:05 PM", 'R': "15:04", 'S': "05",
		'T': "15:04:05", 'x': "01/02/06", 'X': "15:04:05", 'y': "06", 'Y': "2006",
	}
	if layout, known := layouts[c]; known {
		return t.Format(layout)
	}
	switch c {
	case '%':
		return "%"
	case 'C':
		return fmt.Sprintf("%02d", t.Year()/100)
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000)
	case 'j':
		return fmt.Sprintf("%03d", t.YearDay())
	case 'k':
		return fmt.Sprintf("%2d", t.Hour())
	case 'l':
		return fmt.Sprintf("%2d", (t.Hour()+11)%12+1)
	case 'n':
		return "\n"
	case 't':
		return "\t"
	case 'u':
		return fmt.Sprint((int(t.Weekday())+6)%7 + 1)
	case 'w':
		return fmt.Sprint(int(t.Weekday()))
	case 'z', 'Z': // the time of datetime.now() has no zone
		return ""
	}
	return "%" + string(c)
}
