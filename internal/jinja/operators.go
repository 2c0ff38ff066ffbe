package jinja

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

func (r *run) compareOp(op string, a, b any) bool {
	switch op {
	case "==":
		return r.equal(a, b)
	case "!=":
		return !r.equal(a, b)
	case "in":
		return r.contains(b, a)
	case "not in":
		return !r.contains(b, a)
	}
	switch op {
	case "<":
		return r.less(a, b)
	case ">":
		return r.less(b, a)
	case "<=":
		return r.less(a, b) || r.equal(a, b)
	default:
		return r.less(b, a) || r.equal(a, b)
	}
}

func (r *run) overflow() { r.unsupported("an integer beyond 64 bits") }

// binary is one of the operators + - * / // % **.
func (r *run) binary(op string, a, b any) any {
	if _, is := a.(markup); is {
		r.unsupported("the operator %q on text marked as safe", op)
	}
	if _, is := b.(markup); is {
		r.unsupported("the operator %q on text marked as safe", op)
	}
	if s, is := a.(string); is && op == "%" {
		return r.format(s, b)
	}
	i, firstInt := asInt(a)
	j, secondInt := asInt(b)
	if firstInt && secondInt {
		return r.integers(op, i, j)
	}
	x, first := asFloat(a)
	y, second := asFloat(b)
	if first && second {
		return r.floats(op, x, y)
	}
	switch op {
	case "+":
		if s, is := a.(string); is {
			if t, is := b.(string); is {
				r.take(len(s) + len(t))
				return s + t
			}
		}
		if l, is := a.(*list); is {
			if m, is := b.(*list); is && l.tuple == m.tuple {
				r.takeItems(len(l.items) + len(m.items))
				items := make([]any, 0, len(l.items)+len(m.items))
				return &list{items: append(append(items, l.items...), m.items...), tuple: l.tuple}
			}
		}
	case "*":
		if firstInt {
			a, b, j, secondInt = b, a, i, true
		}
		if secondInt {
			n := int(max(j, 0))
			switch a := a.(type) {
			case string:
				if len(a) > 0 && n > math.MaxInt/len(a) {
					n = math.MaxInt / len(a)
				}
				r.take(len(a) * n)
				return strings.Repeat(a, n)
			case *list:
				if len(a.items) > 0 && n > math.MaxInt/len(a.items) {
					n = math.MaxInt / len(a.items)
				}
				r.takeItems(len(a.items) * n)
				items := make([]any, 0, len(a.items)*n)
				if len(a.items) == 0 {
					n = 0
				}
				for range n {
					items = append(items, a.items...)
				}
				return &list{items: items, tuple: a.tuple}
			}
		}
	}
	_, firstView := a.(*view)
	_, secondView := b.(*view)
	if firstView || secondView {
		r.unsupported("the operator %q on a view of a dictionary", op)
	}
	r.fail("the operator %q does not take %s and %s", op, typeName(a), typeName(b))
	return nil
}

func (r *run) integers(op string, i, j int64) any {
	switch op {
	case "+":
		if s := i + j; (s > i) == (j > 0) {
			return s
		}
		r.overflow()
	case "-":
		if s := i - j; (s < i) == (j > 0) {
			return s
		}
		r.overflow()
	case "*":
		if i == 0 || j == 0 {
			return int64(0)
		}
		if p := i * j; p/j == i && !(i == -1 && j == math.MinInt64) && !(j == -1 && i == math.MinInt64) {
			return p
		}
		r.overflow()
	case "/":
		if j == 0 {
			r.fail("division by zero")
		}
		const exact = 1 << 53
		if i > exact || i < -exact || j > exact || j < -exact {
			r.unsupported("dividing integers beyond 53 bits")
		}
		return float64(i) / float64(j)
	case "//", "%":
		if j == 0 {
			r.fail("division by zero")
		}
		if i == math.MinInt64 && j == -1 {
			r.overflow()
		}
		q, m := i/j, i%j
		if m != 0 && (m < 0) != (j < 0) {
			q, m = q-1, m+j
		}
		if op == "//" {
			return q
		}
		return m
	}
	// **
	if j < 0 {
		return r.floats(op, float64(i), float64(j))
	}
	result := int64(1)
	for range j {
		r.step(1)
		p := result * i
		if i != 0 && p/i != result || i == -1 && result == math.MinInt64 {
			r.overflow()
		}
		if result = p; i == 0 || i == 1 {
			break
		}
		if i == -1 && j > 2 {
			if j%2 == 0 {
				return int64(1)
			}
			return int64(-1)
		}
	}
	return result
}

func (r *run) floats(op string, x, y float64) any {
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		if y == 0 {
			r.fail("division by zero")
		}
		return x / y
	case "//", "%":
		if y == 0 {
			r.fail("division by zero")
		}
		m := math.Mod(x, y)
		q := (x - m) / y
		if m != 0 {
			if (y < 0) != (m < 0) {
				m, q = m+y, q-1
			}
		} else {
			m = math.Copysign(0, y)
		}
		if op == "%" {
			return m
		}
		if q == 0 {
			return math.Copysign(0, x/y)
		}
		f := math.Floor(q)
		if q-f > 0.5 {
			f++
		}
		return f
	}
	if x == 0 && y < 0 {
		r.fail("division by zero")
	}
	if x < 0 && y != math.Trunc(y) {
		r.unsupported("complex numbers")
	}
	p := math.Pow(x, y)
	if math.IsInf(p, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
		r.fail("the result is too large")
	}
	return p
}

func (r *run) sign(v any, negative bool) any {
	if i, is := asInt(v); is {
		if !negative {
			return i
		}
		if i == math.MinInt64 {
			r.overflow()
		}
		return -i
	}
	if f, is := v.(float64); is {
		if negative {
			return -f
		}
		return f
	}
	r.fail("%s has no sign", typeName(v))
	return nil
}

// item is v[k].
func (r *run) item(v, k any) any {
	i, isInt := asInt(k)
	at := func(n int64) (int64, bool) {
		if i < 0 {
			i += n
		}
		return i, isInt && i >= 0 && i < n
	}
	switch v := v.(type) {
	case undefined:
		r.fail("an item of what is not defined")
	case *dict:
		if l, is := k.(*list); !is || !l.tuple {
			switch k.(type) {
			case nil, bool, int64, float64, string, markup:
				if found, known := v.get(k); known {
					return found
				}
			}
		}
	case *list:
		if i, inside := at(int64(len(v.items))); inside {
			return v.items[i]
		}
	case *span:
		if i, inside := at(v.len()); inside {
			return v.start + i*v.step
		}
	case string:
		if isInt {
			return r.character(v, i)
		}
	case markup:
		if isInt {
			r.unsupported("an item of text marked as safe")
		}
	}
	if name, is := asString(k); is {
		return r.attribute(v, name)
	}
	return undefined{}
}

func (r *run) character(s string, i int64) any {
	if i < 0 {
		n, _ := r.size(s)
		i += n
	}
	if i < 0 || i >= int64(len(s)) {
		return undefined{}
	}
	for place, c := range s {
		if i == 0 {
			r.read(place)
			return string(c)
		}
		i--
	}
	r.read(len(s))
	return undefined{}
}

// slice is v[a:b:c].
func (r *run) slice(v any, bounds [3]any) any {
	var n int64
	switch v := v.(type) {
	case *list, *span:
		n, _ = r.size(v)
	case string:
		n, _ = r.size(v)
	case markup:
		r.unsupported("a slice of text marked as safe")
	default:
		r.fail("%s cannot be sliced", typeName(v))
	}
	step := int64(1)
	if bounds[2] != nil {
		var is bool
		if step, is = asInt(bounds[2]); !is || step == 0 {
			r.fail("a slice's step must be an integer other than 0")
		}
		step = min(max(step, -math.MaxInt32), math.MaxInt32)
	}
	low, high := int64(0), n
	start, stop := low, high
	if step < 0 {
		low, high = -1, n-1
		start, stop = high, low
	}
	for i, bound := range []*int64{&start, &stop} {
		if bounds[i] == nil {
			continue
		}
		b, is := asInt(bounds[i])
		if !is {
			r.fail("a slice's bounds must be integers")
		}
		if b < 0 {
			b += n
		}
		*bound = min(max(b, low), high)
	}
	part := span{start, stop, step}
	count := int(part.len())
	switch v := v.(type) {
	case *list:
		r.takeItems(count)
		items := make([]any, count)
		for i := range items {
			items[i] = v.items[start+int64(i)*step]
		}
		return &list{items: items, tuple: v.tuple}
	case *span:
		if int64(math.MaxInt32)*math.MaxInt32 < max(v.step, -v.step) {
			r.overflow()
		}
		return &span{v.start + start*v.step, v.start + stop*v.step, v.step * step}
	}
	s := v.(string)
	r.take(len(s))
	if step == 1 {
		from, to := len(s), len(s)
		if count == 0 {
			return ""
		}
		var i int64
		for place := range s {
			if i == start {
				from = place
			}
			if i == stop {
				to = place
				break
			}
			i++
		}
		return s[from:to]
	}
	r.take(4 * len(s))
	characters := []rune(s)
	result := make([]rune, count)
	for i := range result {
		result[i] = characters[start+int64(i)*step]
	}
	return string(result)
}

// format is Python's % on a string.
func (r *run) format(s string, v any) string {
	args := []any{v}
	single := true
	if l, is := v.(*list); is && l.tuple {
		args, single = l.items, false
	}
	d, byName := v.(*dict)
	used := 0
	take := func() any {
		if used >= len(args) {
			r.fail("too few arguments for a format")
		}
		used++
		return args[used-1]
	}
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(s, "%")
		r.put(&b, text)
		if !found {
			break
		}
		s = rest
		var arg any
		named := false
		if strings.HasPrefix(s, "(") {
			key, rest, closed := strings.Cut(s[1:], ")")
			if !closed || !byName {
				r.fail("a format with a name wants a dictionary")
			}
			known := false
			if arg, known = d.get(key); !known {
				r.fail("a format's name is not in the dictionary")
			}
			named, s, used = true, rest, 1
		}
		flags := ""
		for s != "" && strings.IndexByte("-+ 0#", s[0]) >= 0 && len(flags) < 8 {
			flags, s = flags+s[:1], s[1:]
		}
		number := func() int {
			n := 0
			for s != "" && s[0] >= '0' && s[0] <= '9' {
				if n = n*10 + int(s[0]-'0'); n > r.limits.Made {
					r.take(-1)
				}
				s = s[1:]
			}
			return n
		}
		width, precision := number(), -1
		if strings.HasPrefix(s, ".") {
			s = s[1:]
			precision = number()
		}
		if s == "" {
			r.fail("an incomplete format")
		}
		verb := s[0]
		s = s[1:]
		if verb == '%' {
			r.put(&b, "%")
			continue
		}
		if !named {
			arg = take()
		}
		var out string
		isNumber := true
		switch verb {
		case 's', 'r':
			isNumber = false
			if out = r.str(arg); verb == 'r' {
				out = r.repr(arg)
			}
			if precision >= 0 {
				r.read(len(out))
				if c := []rune(out); len(c) > precision {
					out = string(c[:precision])
				}
			}
		case 'd', 'i', 'u', 'x', 'X', 'o':
			i, is := asInt(arg)
			if f, float := arg.(float64); float && strings.IndexByte("diu", verb) >= 0 {
				if i, is = wholeFloat(math.Trunc(f)); !is {
					r.overflow()
				}
			}
			if !is {
				r.fail("a format for numbers with %s", typeName(arg))
			}
			if precision >= 0 || strings.Contains(flags, "#") {
				r.unsupported("a format of an integer with a precision or %q", "#")
			}
			base := map[byte]int{'x': 16, 'X': 16, 'o': 8}[verb]
			if out = strconv.FormatInt(i, max(base, 10)); base == 8 {
				out = strconv.FormatInt(i, 8)
			}
			if verb == 'X' {
				out = strings.ToUpper(out)
			}
		case 'f', 'F', 'e', 'E':
			f, is := asFloat(arg)
			if !is {
				r.fail("a format for numbers with %s", typeName(arg))
			}
			if math.IsNaN(f) || math.IsInf(f, 0) || strings.Contains(flags, "#") {
				r.unsupported("a format of infinity or with %q", "#")
			}
			if precision < 0 {
				precision = 6
			}
			r.take(min(precision, math.MaxInt32) + 400)
			out = strconv.FormatFloat(f, verb|0x20, precision, 64)
			if verb == 'E' {
				out = strings.ToUpper(out)
			}
		default:
			r.unsupported("this kind of format")
		}
		if isNumber && !strings.HasPrefix(out, "-") {
			if strings.Contains(flags, "+") {
				out = "+" + out
			} else if strings.Contains(flags, " ") {
				out = " " + out
			}
		}
		fill := max(width-utf8.RuneCountInString(out), 0)
		r.take(fill)
		switch {
		case strings.Contains(flags, "-"):
			out += strings.Repeat(" ", fill)
		case isNumber && strings.Contains(flags, "0"):
			signed := 0
			if out != "" && strings.IndexByte("+- ", out[0]) >= 0 {
				signed = 1
			}
			out = out[:signed] + strings.Repeat("0", fill) + out[signed:]
		default:
			out = strings.Repeat(" ", fill) + out
		}
		r.put(&b, out)
	}
	if used < len(args) && !byName && !(single && isSequence(v)) {
		r.fail("too many arguments for a format")
	}
	return b.String()
}

// isSequence tells the values that Python's % takes for a mapping, and hence does not miss in the
// format.
func isSequence(v any) bool {
	switch v := v.(type) {
	case *list:
		return !v.tuple
	case *span, undefined:
		return true
	}
	return false
}
