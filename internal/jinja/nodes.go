package jinja

import (
	"context"
	"strings"
	"time"
)

// Render runs the template. Values are Go's: nil, bool, int, int64, float64, string, []any, [Dict].
func (t *Template) Render(ctx context.Context, values Dict, now func() time.Time, limits Limits) (result string, err error) {
	defer recovered(&err)
	defaults := DefaultLimits(0)
	for _, l := range []struct{ set, standard *int }{
		{&limits.Work, &defaults.Work}, {&limits.Made, &defaults.Made}, {&limits.Output, &defaults.Output}, {&limits.Depth, &defaults.Depth},
	} {
		if *l.set == 0 {
			*l.set = *l.standard
		}
	}
	if limits.Time == 0 {
		limits.Time = defaults.Time
	}
	out := &buffer{}
	r := &run{ctx: ctx, now: now, source: t.source, limits: limits, output: out, deadline: time.Now().Add(limits.Time)}
	r.step(0)
	top := &scope{vars: map[string]any{}}
	for _, e := range values {
		top.vars[e.Key] = r.fromGo(e.Value)
	}
	r.exec(t.body, top.inner(), out)
	return out.String(), nil
}

// Dict is a dictionary for [Template.Render]; the order is kept.
type Dict []Entry

// Entry is one key of a [Dict].
type Entry struct {
	Key   string
	Value any
}

func (r *run) fromGo(v any) any {
	r.enter()
	defer r.leave()
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v
	case int:
		return int64(v)
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = r.fromGo(v[i])
		}
		return &list{items: items}
	case Dict:
		d := newDict(len(v))
		for _, e := range v {
			d.set(e.Key, r.fromGo(e.Value))
		}
		return d
	}
	panic("jinja: a value of an unknown type") // a mistake of the calling code
}

// scope holds the variables of a block; what is not there is looked up around it.
type scope struct {
	vars  map[string]any
	outer *scope
}

func (s *scope) inner() *scope { return &scope{outer: s} }

func (s *scope) set(name string, v any) {
	if s.vars == nil {
		s.vars = map[string]any{}
	}
	s.vars[name] = v
}

func (s *scope) get(name string) any {
	for ; s != nil; s = s.outer {
		if v, known := s.vars[name]; known {
			return v
		}
	}
	if g, known := globals[name]; known {
		return g
	}
	return undefined{}
}

// flow is how a block ended.
type flow uint8

const (
	fellThrough flow = iota
	breakLoop
	continueLoop
)

type statement interface {
	exec(r *run, s *scope, out *buffer) flow
}

type expr interface {
	eval(r *run, s *scope) any
}

func (r *run) exec(body []statement, s *scope, out *buffer) flow {
	r.enter()
	defer r.leave()
	for _, n := range body {
		r.step(1)
		if f := n.exec(r, s, out); f != fellThrough {
			return f
		}
	}
	return fellThrough
}

// eval evaluates a node at a place of the source.
func (r *run) eval(e expr, s *scope) any {
	r.enter()
	r.step(1)
	v := e.eval(r, s)
	r.leave()
	return v
}

type dataNode struct{ text string }

func (n *dataNode) exec(r *run, _ *scope, out *buffer) flow {
	r.write(out, n.text)
	return fellThrough
}

type printNode struct{ values []expr }

func (n *printNode) exec(r *run, s *scope, out *buffer) flow {
	for _, e := range n.values {
		r.write(out, r.str(r.eval(e, s)))
	}
	return fellThrough
}

type flowNode struct{ flow flow }

func (n *flowNode) exec(*run, *scope, *buffer) flow { return n.flow }

type branch struct {
	test expr
	body []statement
}

type ifNode struct {
	branches  []branch
	otherwise []statement
}

func (n *ifNode) exec(r *run, s *scope, out *buffer) flow {
	for _, b := range n.branches {
		if r.truth(r.eval(b.test, s)) {
			return r.exec(b.body, s, out)
		}
	}
	return r.exec(n.otherwise, s, out)
}

type withNode struct {
	targets []target
	values  []expr
	body    []statement
}

func (n *withNode) exec(r *run, s *scope, out *buffer) flow {
	inner := s.inner()
	for i, t := range n.targets {
		t.assign(r, inner, r.eval(n.values[i], s))
	}
	return r.exec(n.body, inner, out)
}

type setNode struct {
	at     int
	target target
	value  expr // for a block, its filters, or nil
	block  bool
	body   []statement
}

func (n *setNode) exec(r *run, s *scope, out *buffer) flow {
	var v any
	if n.block {
		var b buffer
		r.exec(n.body, s.inner(), &b)
		v = b.String()
		if n.value != nil {
			v = r.filterBlock(n.value, v, s)
		}
	} else {
		v = r.eval(n.value, s)
	}
	r.at = n.at
	n.target.assign(r, s, v)
	return fellThrough
}

// filterBlock applies the filters of a block, whose innermost value is open.
func (r *run) filterBlock(filters expr, v any, s *scope) any {
	inner := s.inner()
	inner.set(blockText, v)
	return r.eval(filters, inner)
}

const blockText = " text of the block" // no name of a template's

type filterNode struct {
	filter expr
	body   []statement
}

func (n *filterNode) exec(r *run, s *scope, out *buffer) flow {
	var b buffer
	r.exec(n.body, s.inner(), &b)
	r.write(out, r.str(r.filterBlock(n.filter, b.String(), s)))
	return fellThrough
}

// target is what can be assigned to.
type target interface {
	assign(r *run, s *scope, v any)
}

type nameTarget struct{ name string }

func (t *nameTarget) assign(_ *run, s *scope, v any) { s.set(t.name, v) }

type namespaceTarget struct {
	at              int
	namespace, name string
}

func (t *namespaceTarget) assign(r *run, s *scope, v any) {
	n, is := s.get(t.namespace).(*namespace)
	if !is {
		r.at = t.at
		r.fail("cannot assign an attribute of what is no namespace")
	}
	r.takeItems(2)
	n.set(t.name, v)
}

type tupleTarget struct{ targets []target }

func (t *tupleTarget) assign(r *run, s *scope, v any) {
	next := r.iter(v)
	for i := range t.targets {
		item, more := next()
		if !more {
			r.fail("too few values to unpack, want %d", len(t.targets))
		}
		t.targets[i].assign(r, s, item)
	}
	if _, more := next(); more {
		r.fail("too many values to unpack, want %d", len(t.targets))
	}
}

type forNode struct {
	at              int
	target          target
	over, test      expr
	recursive       bool
	body, otherwise []statement
}

func (n *forNode) exec(r *run, s *scope, out *buffer) flow {
	over := r.eval(n.over, s)
	r.at = n.at
	return n.loop(r, s, out, over, 0)
}

func (n *forNode) loop(r *run, s *scope, out *buffer, over any, depth int64) flow {
	items := over
	if n.test != nil {
		next := r.iter(over)
		items = &generator{next: func() (any, bool) {
			for {
				item, more := next()
				if !more {
					return nil, false
				}
				inner := s.inner()
				n.target.assign(r, inner, item)
				if r.truth(r.eval(n.test, inner)) {
					return item, true
				}
			}
		}}
	}
	l := &loop{over: items, next: r.iter(items), depth0: depth, index0: -1}
	if n.recursive {
		l.again = func(over any) any {
			r.enter()
			defer r.leave()
			var b buffer
			n.loop(r, s, &b, over, l.depth0+1)
			return b.String()
		}
	}
	ran := false
	for l.advance(r) {
		ran = true
		inner := s.inner()
		inner.set("loop", l)
		n.target.assign(r, inner, l.current)
		r.takeItems(4)
		if r.exec(n.body, inner, out) == breakLoop {
			break
		}
	}
	if !ran {
		return r.exec(n.otherwise, s.inner(), out)
	}
	return fellThrough
}

// macro is the body of a macro or of a call block.
type macro struct {
	name                                string
	params                              []string
	defaults                            []expr
	body                                []statement
	usesCaller, usesKwargs, usesVarargs bool
}

func (m *macro) function(s *scope) *function {
	return &function{name: m.name, macro: m, call: func(r *run, args []any, kw keywords) any { return m.invoke(r, s, args, kw) }}
}

func (m *macro) invoke(r *run, outer *scope, args []any, kw keywords) any {
	s := outer.inner()
	open := len(m.params) - len(m.defaults)
	for i, p := range m.params {
		given, named := kw.pop(p)
		switch {
		case i < len(args) && named:
			r.fail("a macro's argument is given twice")
		case i < len(args):
			s.set(p, args[i])
		case named:
			s.set(p, given)
		case i >= open:
			s.set(p, r.eval(m.defaults[i-open], s))
		default:
			s.set(p, undefined{})
		}
	}
	if m.usesCaller {
		caller, given := kw.pop("caller")
		if !given {
			caller = undefined{}
		}
		s.set("caller", caller)
	}
	if m.usesKwargs {
		d := newDict(len(kw.names))
		for i, n := range kw.names {
			d.set(n, kw.values[i])
		}
		s.set("kwargs", d)
	} else if len(kw.names) > 0 {
		r.fail("a macro does not take this keyword argument")
	}
	if m.usesVarargs {
		s.set("varargs", &list{items: args[min(len(args), len(m.params)):], tuple: true})
	} else if len(args) > len(m.params) {
		r.fail("a macro takes %d arguments, %d were given", len(m.params), len(args))
	}
	var b buffer
	r.exec(m.body, s, &b)
	return b.String()
}

type macroNode struct {
	at    int
	macro *macro
}

func (n *macroNode) exec(r *run, s *scope, _ *buffer) flow {
	r.takeItems(8)
	s.set(n.macro.name, n.macro.function(s))
	return fellThrough
}

// callNode is a call block, or without a call the generation tag, which only renders its body.
type callNode struct {
	at    int
	call  *callExpr
	macro *macro
}

func (n *callNode) exec(r *run, s *scope, out *buffer) flow {
	caller := n.macro.function(s)
	if n.call == nil {
		r.write(out, r.str(r.call(caller, nil, keywords{}, n.at)))
		return fellThrough
	}
	f := r.eval(n.call.function, s)
	args, kw := n.call.arguments.eval(r, s)
	if _, given := kw.get("caller"); given {
		r.fail("an argument is given twice")
	}
	kw.names, kw.values = append(kw.names, "caller"), append(kw.values, any(caller))
	r.write(out, r.str(r.call(f, args, kw, n.call.at)))
	return fellThrough
}

// Expressions.

type constant struct{ value any }

func (n *constant) eval(*run, *scope) any { return n.value }

type nameExpr struct {
	at   int
	name string
}

func (n *nameExpr) eval(r *run, s *scope) any {
	r.at = n.at
	if n.name == "self" {
		r.unsupported("the name %q", "self")
	}
	return s.get(n.name)
}

type listExpr struct {
	at    int
	items []expr
	tuple bool
}

func (n *listExpr) eval(r *run, s *scope) any {
	r.takeItems(len(n.items))
	items := make([]any, len(n.items))
	for i, e := range n.items {
		items[i] = r.eval(e, s)
	}
	return &list{items: items, tuple: n.tuple}
}

type dictExpr struct {
	at           int
	keys, values []expr
}

func (n *dictExpr) eval(r *run, s *scope) any {
	r.takeItems(4 * len(n.keys))
	d := newDict(len(n.keys))
	for i := range n.keys {
		k := r.eval(n.keys[i], s)
		v := r.eval(n.values[i], s)
		r.at = n.at
		r.hashable(k)
		d.set(k, v)
	}
	return d
}

type conditionExpr struct {
	at            int
	test, yes, no expr // no may be nil
}

func (n *conditionExpr) eval(r *run, s *scope) any {
	if r.truth(r.eval(n.test, s)) {
		return r.eval(n.yes, s)
	}
	if n.no == nil {
		return undefined{}
	}
	return r.eval(n.no, s)
}

type logicExpr struct {
	at          int
	and         bool
	left, right expr
}

func (n *logicExpr) eval(r *run, s *scope) any {
	left := r.eval(n.left, s)
	if r.truth(left) != n.and {
		return left
	}
	return r.eval(n.right, s)
}

type notExpr struct {
	at    int
	value expr
}

func (n *notExpr) eval(r *run, s *scope) any { return !r.truth(r.eval(n.value, s)) }

type compareExpr struct {
	at    int
	first expr
	ops   []string
	rest  []expr
}

func (n *compareExpr) eval(r *run, s *scope) any {
	left := r.eval(n.first, s)
	for i, op := range n.ops {
		right := r.eval(n.rest[i], s)
		r.at = n.at
		if !r.compareOp(op, left, right) {
			return false
		}
		left = right
	}
	return true
}

type binaryExpr struct {
	at          int
	op          string
	left, right expr
}

func (n *binaryExpr) eval(r *run, s *scope) any {
	left, right := r.eval(n.left, s), r.eval(n.right, s)
	r.at = n.at
	return r.binary(n.op, left, right)
}

type concatExpr struct {
	at    int
	parts []expr
}

func (n *concatExpr) eval(r *run, s *scope) any {
	parts := make([]string, len(n.parts))
	size := 0
	for i, e := range n.parts {
		parts[i] = r.str(r.eval(e, s))
		size += len(parts[i])
	}
	r.take(size)
	return strings.Join(parts, "")
}

type signExpr struct {
	at       int
	negative bool
	value    expr
}

func (n *signExpr) eval(r *run, s *scope) any {
	v := r.eval(n.value, s)
	r.at = n.at
	return r.sign(v, n.negative)
}

type attributeExpr struct {
	at    int
	value expr
	name  string
}

func (n *attributeExpr) eval(r *run, s *scope) any {
	v := r.eval(n.value, s)
	r.at = n.at
	return r.attribute(v, n.name)
}

type itemExpr struct {
	at         int
	value, key expr
}

func (n *itemExpr) eval(r *run, s *scope) any {
	v, k := r.eval(n.value, s), r.eval(n.key, s)
	r.at = n.at
	return r.item(v, k)
}

type sliceExpr struct {
	at     int
	value  expr
	bounds [3]expr
}

func (n *sliceExpr) eval(r *run, s *scope) any {
	v := r.eval(n.value, s)
	var bounds [3]any
	for i, b := range n.bounds {
		if b != nil {
			bounds[i] = r.eval(b, s)
		}
	}
	r.at = n.at
	return r.slice(v, bounds)
}

// arguments are those of a call, a filter or a test.
type arguments struct {
	positional []expr
	names      []string
	named      []expr
	list, dict expr // *list and **dict, or nil
}

func (a *arguments) eval(r *run, s *scope) ([]any, keywords) {
	args := make([]any, len(a.positional))
	for i, e := range a.positional {
		args[i] = r.eval(e, s)
	}
	var kw keywords
	for i, e := range a.named {
		kw.names, kw.values = append(kw.names, a.names[i]), append(kw.values, r.eval(e, s))
	}
	if a.list != nil {
		args = append(args, r.list(r.eval(a.list, s))...)
	}
	if a.dict != nil {
		d, is := r.eval(a.dict, s).(*dict)
		if !is {
			r.fail("the argument after ** is no dictionary")
		}
		r.takeItems(4 * len(d.keys))
		seen := map[string]bool{}
		for _, n := range kw.names {
			seen[n] = true
		}
		for i, k := range d.keys {
			n, is := k.(string)
			if !is || seen[n] {
				r.fail("the dictionary after ** has a key that cannot be an argument's name")
			}
			seen[n] = true
			kw.names, kw.values = append(kw.names, n), append(kw.values, d.values[i])
		}
	}
	return args, kw
}

type callExpr struct {
	at       int
	function expr
	arguments
}

func (n *callExpr) eval(r *run, s *scope) any {
	f := r.eval(n.function, s)
	args, kw := n.arguments.eval(r, s)
	return r.call(f, args, kw, n.at)
}

func (r *run) call(f any, args []any, kw keywords, at int) any {
	r.at = at
	switch f := f.(type) {
	case *function:
		r.enter()
		defer r.leave()
		return f.call(r, args, kw)
	case *loop:
		a := r.bind(args, kw, 1, "iterable")
		if f.again == nil {
			r.fail("a loop that is called must have the mark %q", "recursive")
		}
		return f.again(a[0])
	case undefined:
		r.fail("a function that is not defined is called")
	}
	r.fail("%s is called, which is no function", typeName(f))
	return nil
}

type filterExpr struct {
	at    int
	value expr // nil: the text of the block
	name  string
	arguments
}

func (n *filterExpr) eval(r *run, s *scope) any {
	var v any
	if n.value == nil {
		v = s.get(blockText)
	} else {
		v = r.eval(n.value, s)
	}
	args, kw := n.arguments.eval(r, s)
	r.at = n.at
	return r.filter(n.name, v, args, kw)
}

func (r *run) filter(name string, v any, args []any, kw keywords) any {
	f, known := filters[name]
	if !known {
		r.missing("filter", name, unsupportedFilters)
	}
	r.step(1)
	return f(r, v, args, kw)
}

func (r *run) missing(what, name string, unsupported []string) {
	for _, u := range unsupported {
		if u == name {
			r.unsupported("the %s %q", what, u)
		}
	}
	r.fail("a %s that Jinja2 does not have", what)
}

type checkExpr struct {
	at    int
	value expr
	name  string
	arguments
}

func (n *checkExpr) eval(r *run, s *scope) any {
	v := r.eval(n.value, s)
	args, kw := n.arguments.eval(r, s)
	r.at = n.at
	return r.check(n.name, v, args, kw)
}

func (r *run) check(name string, v any, args []any, kw keywords) bool {
	f, known := checks[name]
	if !known {
		r.missing("test", name, unsupportedChecks)
	}
	r.step(1)
	return f(r, v, args, kw)
}
