package jinja

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// Template is a parsed template. It is safe for concurrent use.
type Template struct {
	source string
	body   []statement
}

// Parse reads a template.
func Parse(source string) (template *Template, err error) {
	defer recovered(&err)
	if len(source) > maxSource {
		return nil, &Error{Message: fmt.Sprintf("it has %d bytes, want at most %d", len(source), maxSource)}
	}
	if !utf8.ValidString(source) {
		return nil, &Error{Message: "it is not UTF-8"}
	}
	source = normalize(source)
	if n := len(source); n > 0 && source[n-1] == '\n' {
		source = source[:n-1]
	}
	p := &parser{source: source, tokens: lex(source)}
	p.openScope()
	body := p.statements()
	if p.peek().kind != endOfFile {
		p.fail("a tag that does not belong here")
	}
	p.settle(0)
	if len(p.certain) > 0 {
		panic(stop{p.certain[0]})
	}
	return &Template{source: source, body: body}, nil
}

// parser makes the tree as jinja2/parser.py does.
type parser struct {
	source string
	tokens []token
	next   int
	depth  int

	loops   int        // loops around this place that break and continue can mean
	inFor   int        // loops around this place
	names   [][]string // for each macro around this place, the names that its body reads
	scopes  []names    // the blocks around this place that have variables of their own
	ifs     int        // ifs around this place, within its scope
	unknown []*Error   // filters and tests of this scope that do not exist; an if pardons them
	certain []*Error   // those of scopes that are done: no if around a scope pardons them
}

// names are what is known of a scope's variables up to a place.
type names struct {
	seen   map[string]bool // read or set in the scope itself
	inside map[string]bool // read in a scope within it, before it was seen
	ifs    int             // ifs around this place in the scope outside
}

func (p *parser) openScope() {
	p.scopes = append(p.scopes, names{map[string]bool{}, map[string]bool{}, p.ifs})
	p.ifs = 0
}

func (p *parser) closeScope() {
	last := len(p.scopes) - 1
	p.ifs = p.scopes[last].ifs
	p.scopes = p.scopes[:last]
}

// reads notes that a name is read here.
func (p *parser) reads(n string) {
	for i := len(p.scopes) - 1; i >= 0 && !p.scopes[i].seen[n]; i-- {
		if i == len(p.scopes)-1 {
			p.scopes[i].seen[n] = true
		} else {
			p.scopes[i].inside[n] = true
		}
	}
}

// givenNames are the variables that a template finds, beside the functions.
var givenNames = []string{"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}

// sets notes that a name is set here. Jinja2 takes a variable that a scope sets for undefined in
// the blocks before that, even where it was given from outside; this package would read the outer
// one.
func (p *parser) sets(n string) {
	s := &p.scopes[len(p.scopes)-1]
	if _, function := globals[n]; !s.seen[n] && s.inside[n] && p.ifs == 0 && (function || slices.Contains(givenNames, n)) {
		p.fail("the variable %q is set behind a block that reads it: not supported", n)
	}
	s.seen[n] = true
}

func (p *parser) peek() token { return p.tokens[p.next] }

func (p *parser) look() token { return p.tokens[min(p.next+1, len(p.tokens)-1)] }

func (p *parser) take() token {
	t := p.tokens[p.next]
	if t.kind != endOfFile {
		p.next++
	}
	return t
}

func (p *parser) fail(format string, args ...any) {
	panic(stop{newError(p.source, p.peek().at, fmt.Sprintf(format, args...))})
}

func (p *parser) enter() {
	if p.depth++; p.depth > 2*maxNesting {
		p.fail("the template is nested too deeply, want at most %d levels", maxNesting)
	}
}

func (p *parser) leave() { p.depth-- }

func (p *parser) isOp(op string) bool   { t := p.peek(); return t.kind == operator && t.text == op }
func (p *parser) isName(n string) bool  { t := p.peek(); return t.kind == name && t.text == n }
func (p *parser) skipOp(op string) bool { return p.isOp(op) && p.take().kind == operator }
func (p *parser) skipName(n string) bool {
	return p.isName(n) && p.take().kind == name
}

func (p *parser) expectOp(op string) {
	if !p.skipOp(op) {
		p.fail("expected %q", op)
	}
}

func (p *parser) expect(k kind, what string) token {
	if p.peek().kind != k {
		p.fail("expected %s", what)
	}
	return p.take()
}

// statements reads up to one of the ends, whose name is left to be read, or to the end of the file.
func (p *parser) statements(ends ...string) []statement {
	p.enter()
	defer p.leave()
	var body []statement
	for {
		switch t := p.peek(); t.kind {
		case endOfFile:
			if len(ends) > 0 {
				p.fail("the template ends within a block, expected %q", ends[len(ends)-1])
			}
			return body
		case data:
			p.take()
			body = append(body, &dataNode{t.text})
		case variableBegin:
			p.take()
			body = append(body, &printNode{[]expr{p.tuple(tupleOptions{conditional: true})}})
			p.expect(variableEnd, `"}}"`)
		default:
			p.take()
			if tag := p.peek(); tag.kind == name && slices.Contains(ends, tag.text) {
				return body
			}
			body = append(body, p.statement())
			p.expect(blockEnd, `"%}"`)
		}
	}
}

// block reads the rest of a tag, its body and the name of its end.
func (p *parser) block(ends ...string) (body []statement, end string) {
	p.skipOp(":")
	p.expect(blockEnd, `"%}"`)
	body = p.statements(ends...)
	return body, p.take().text
}

// unsupportedTags are Jinja2's, and those of extensions that transformers does not load.
var unsupportedTags = []string{"autoescape", "block", "extends", "from", "import", "include"}

func (p *parser) statement() statement {
	t := p.expect(name, "the name of a tag")
	switch t.text {
	case "if":
		return p.ifTag()
	case "for":
		return p.forTag(t.at)
	case "set":
		return p.setTag(t.at)
	case "with":
		return p.withTag()
	case "macro":
		return p.macroTag(t.at)
	case "call":
		var m macro
		if p.isOp("(") {
			m = p.signature()
		}
		call, is := p.expression().(*callExpr)
		if !is {
			p.fail("expected a call")
		}
		p.callable(&m, "endcall")
		m.name = "caller"
		return &callNode{at: t.at, call: call, macro: &m}
	case "generation":
		var m macro
		p.callable(&m, "endgeneration")
		m.name = "caller"
		return &callNode{at: t.at, macro: &m}
	case "filter":
		filter := p.filters(nil, true)
		body := p.outOfLoop("endfilter")
		return &filterNode{filter: filter, body: body}
	case "print":
		n := &printNode{}
		for p.peek().kind != blockEnd {
			if len(n.values) > 0 {
				p.expectOp(",")
			}
			n.values = append(n.values, p.expression())
		}
		return n
	case "break", "continue":
		if p.loops == 0 {
			p.fail("a %q outside of a loop", t.text)
		}
		if t.text == "break" {
			return &flowNode{breakLoop}
		}
		return &flowNode{continueLoop}
	}
	p.next--
	if slices.Contains(unsupportedTags, t.text) {
		p.fail("the tag %q: not supported", t.text)
	}
	p.fail("a tag that Jinja2 does not have, or that does not belong here")
	return nil
}

// settle ends a scope: what it found to be missing since is an error.
func (p *parser) settle(since int) {
	p.certain = append(p.certain, p.unknown[since:]...)
	p.unknown = p.unknown[:since]
}

// outOfLoop reads a body whose text is kept apart: a break in it would lose that text.
func (p *parser) outOfLoop(end string) []statement {
	loops, unknown := p.loops, len(p.unknown)
	p.loops = 0
	p.openScope()
	body, _ := p.block(end)
	p.closeScope()
	p.loops = loops
	p.settle(unknown)
	return body
}

func (p *parser) ifTag() statement {
	unknown := len(p.unknown)
	n := &ifNode{}
	for {
		test := p.tuple(tupleOptions{})
		p.ifs++
		body, end := p.block("elif", "else", "endif")
		p.ifs--
		n.branches = append(n.branches, branch{test, body})
		if end == "else" {
			p.ifs++
			n.otherwise, end = p.block("endif")
			p.ifs--
		}
		if end == "endif" {
			p.unknown = p.unknown[:unknown]
			return n
		}
	}
}

func (p *parser) forTag(at int) statement {
	p.inFor++
	begin := p.next
	n := &forNode{at: at, target: p.target(tupleOptions{end: "in"})}
	if !p.skipName("in") {
		p.fail("expected %q", "in")
	}
	p.inFor--
	n.over = p.tuple(tupleOptions{end: "recursive"})
	p.inFor++
	unknown := len(p.unknown)
	p.openScope()
	for _, t := range p.tokens[begin:p.next] {
		if t.kind == name && t.text == "in" {
			break
		}
		p.scopes[len(p.scopes)-1].seen[t.text] = true // the target's
	}
	if p.skipName("if") {
		n.test = p.expression()
	}
	n.recursive = p.skipName("recursive")
	p.loops++
	body, end := p.block("else", "endfor")
	n.body = body
	p.loops--
	if end == "else" {
		n.otherwise, _ = p.block("endfor")
	}
	p.closeScope()
	p.settle(unknown)
	p.inFor--
	return n
}

func (p *parser) setTag(at int) statement {
	target := p.target(tupleOptions{namespace: true})
	if p.skipOp("=") {
		n := &setNode{at: at, target: target, value: p.tuple(tupleOptions{conditional: true})}
		p.setsTarget(target)
		return n
	}
	p.setsTarget(target)
	n := &setNode{at: at, target: target}
	if p.isOp("|") {
		n.value = p.filters(nil, false)
	}
	n.body, n.block = p.outOfLoop("endset"), true
	return n
}

func (p *parser) setsTarget(t target) {
	switch t := t.(type) {
	case *nameTarget:
		p.sets(t.name)
	case *tupleTarget:
		for _, inner := range t.targets {
			p.setsTarget(inner)
		}
	}
}

func (p *parser) withTag() statement {
	n := &withNode{}
	for p.peek().kind != blockEnd {
		if len(n.targets) > 0 {
			p.expectOp(",")
		}
		n.targets = append(n.targets, p.target(tupleOptions{}))
		p.expectOp("=")
		n.values = append(n.values, p.expression())
	}
	unknown := len(p.unknown)
	p.openScope()
	n.body, _ = p.block("endwith")
	p.closeScope()
	p.settle(unknown)
	return n
}

func (p *parser) macroTag(at int) statement {
	called := p.target(tupleOptions{nameOnly: true}).(*nameTarget).name
	p.sets(called)
	m := p.signature()
	m.name = called
	p.callable(&m, "endmacro")
	return &macroNode{at: at, macro: &m}
}

// signature reads the parameters of a macro or of a call block.
func (p *parser) signature() macro {
	var m macro
	p.expectOp("(")
	for !p.isOp(")") {
		if len(m.params) > 0 {
			p.expectOp(",")
		}
		n := p.target(tupleOptions{nameOnly: true}).(*nameTarget).name
		if slices.Contains(m.params, n) {
			p.fail("two parameters of the same name")
		}
		m.params = append(m.params, n)
		if p.skipOp("=") {
			m.defaults = append(m.defaults, p.expression())
		} else if len(m.defaults) > 0 {
			p.fail("a parameter without a default value behind one with it")
		}
	}
	p.expectOp(")")
	return m
}

// callable reads a macro's body, and which of the special names it reads.
func (p *parser) callable(m *macro, end string) {
	loops, inFor := p.loops, p.inFor
	p.loops = 0
	p.names = append(p.names, nil)
	unknown := len(p.unknown)
	p.openScope()
	for _, param := range m.params {
		p.sets(param)
	}
	m.body, _ = p.block(end)
	p.closeScope()
	p.settle(unknown)
	read := p.names[len(p.names)-1]
	p.names = p.names[:len(p.names)-1]
	p.loops, p.inFor = loops, inFor
	for _, special := range []struct {
		name string
		used *bool
	}{{"caller", &m.usesCaller}, {"kwargs", &m.usesKwargs}, {"varargs", &m.usesVarargs}} {
		*special.used = slices.Contains(read, special.name) && !slices.Contains(m.params, special.name)
	}
}

type tupleOptions struct {
	end         string // a name that ends the tuple
	conditional bool   // a if b else c is allowed
	explicit    bool   // in parentheses: may be empty
	namespace   bool   // targets: n.x is allowed
	nameOnly    bool   // targets: one name
}

var reserved = []string{"true", "false", "none", "True", "False", "None"}

// target reads what can be assigned to.
func (p *parser) target(options tupleOptions) target {
	if options.nameOnly {
		t := p.expect(name, "a name")
		return p.nameTarget(t)
	}
	var list []target
	tuple := false
	for {
		if len(list) > 0 {
			p.expectOp(",")
		}
		if t := p.peek(); t.kind == variableEnd || t.kind == blockEnd || p.isOp(")") || options.end != "" && p.isName(options.end) {
			break
		}
		list = append(list, p.primaryTarget(options))
		if !p.isOp(",") {
			break
		}
		tuple = true
	}
	if tuple {
		return &tupleTarget{list}
	}
	if len(list) == 0 {
		p.fail("expected something to assign to")
	}
	return list[0]
}

func (p *parser) primaryTarget(options tupleOptions) target {
	if p.isOp("(") {
		p.enter()
		defer p.leave()
		p.take()
		inner := p.target(tupleOptions{})
		p.expectOp(")")
		return inner
	}
	t := p.expect(name, "something to assign to")
	if options.namespace && p.isOp(".") {
		p.take()
		p.read(t.text)
		return &namespaceTarget{at: t.at, namespace: t.text, name: p.expect(name, "a name").text}
	}
	return p.nameTarget(t)
}

func (p *parser) nameTarget(t token) target {
	if slices.Contains(reserved, t.text) || p.inFor > 0 && t.text == "loop" {
		p.next--
		p.fail("cannot assign to %q", t.text)
	}
	return &nameTarget{t.text}
}

func (p *parser) read(n string) {
	p.reads(n)
	if n != "caller" && n != "kwargs" && n != "varargs" {
		return
	}
	for i := range p.names {
		p.names[i] = append(p.names[i], n)
	}
}

func (p *parser) tuple(options tupleOptions) expr {
	at := p.peek().at
	var list []expr
	tuple := false
	for {
		if len(list) > 0 {
			p.expectOp(",")
		}
		if t := p.peek(); t.kind == variableEnd || t.kind == blockEnd || p.isOp(")") || options.end != "" && p.isName(options.end) {
			break
		}
		if options.conditional {
			list = append(list, p.expression())
		} else {
			list = append(list, p.or())
		}
		if !p.isOp(",") {
			break
		}
		tuple = true
	}
	if !tuple && len(list) == 1 {
		return list[0]
	}
	if !tuple && !options.explicit {
		p.fail("expected an expression")
	}
	return &listExpr{at: at, items: list, tuple: true}
}

func (p *parser) expression() expr {
	p.enter()
	defer p.leave()
	unknown := len(p.unknown)
	value := p.or()
	for p.skipName("if") {
		n := &conditionExpr{at: p.peek().at, yes: value, test: p.or()}
		if p.skipName("else") {
			n.no = p.expression()
		}
		p.unknown = p.unknown[:unknown]
		value = n
	}
	return value
}

func (p *parser) or() expr {
	left := p.and()
	for p.isName("or") {
		at := p.take().at
		left = &logicExpr{at: at, left: left, right: p.and()}
	}
	return left
}

func (p *parser) and() expr {
	left := p.not()
	for p.isName("and") {
		at := p.take().at
		left = &logicExpr{at: at, and: true, left: left, right: p.not()}
	}
	return left
}

func (p *parser) not() expr {
	if p.isName("not") {
		p.enter()
		defer p.leave()
		at := p.take().at
		return &notExpr{at, p.not()}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	at := p.peek().at
	first := p.sum()
	n := &compareExpr{at: at, first: first}
	for {
		op := ""
		switch t := p.peek(); {
		case t.kind == operator && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, t.text):
			op = t.text
			p.take()
		case p.skipName("in"):
			op = "in"
		case p.isName("not") && p.look().kind == name && p.look().text == "in":
			p.take()
			p.take()
			op = "not in"
		}
		if op == "" {
			if len(n.ops) == 0 {
				return first
			}
			return n
		}
		n.ops = append(n.ops, op)
		n.rest = append(n.rest, p.sum())
	}
}

func (p *parser) binary(next func() expr, ops ...string) expr {
	left := next()
	for {
		t := p.peek()
		if t.kind != operator || !slices.Contains(ops, t.text) {
			return left
		}
		p.take()
		left = &binaryExpr{at: t.at, op: t.text, left: left, right: next()}
	}
}

func (p *parser) sum() expr { return p.binary(p.concat, "+", "-") }

func (p *parser) concat() expr {
	at := p.peek().at
	parts := []expr{p.product()}
	for p.skipOp("~") {
		parts = append(parts, p.product())
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return &concatExpr{at, parts}
}

func (p *parser) product() expr { return p.binary(p.power, "*", "/", "//", "%") }

func (p *parser) power() expr { return p.binary(func() expr { return p.unary(true) }, "**") }

func (p *parser) unary(withFilter bool) expr {
	var value expr
	if t := p.peek(); p.isOp("-") || p.isOp("+") {
		p.enter()
		p.take()
		value = &signExpr{at: t.at, negative: t.text == "-", value: p.unary(false)}
		p.leave()
	} else {
		value = p.primary()
	}
	value = p.postfix(value)
	if !withFilter {
		return value
	}
	for {
		switch {
		case p.isOp("|"):
			value = p.filters(value, false)
		case p.isName("is"):
			value = p.check(value)
		case p.isOp("("):
			value = p.call(value)
		default:
			return value
		}
	}
}

func (p *parser) primary() expr {
	switch t := p.take(); t.kind {
	case name:
		switch t.text {
		case "true", "True":
			return &constant{true}
		case "false", "False":
			return &constant{false}
		case "none", "None":
			return &constant{nil}
		}
		p.read(t.text)
		return &nameExpr{t.at, t.text}
	case text:
		value := t.text
		for p.peek().kind == text {
			value += p.take().text
			if len(value) > maxSource {
				p.fail("a string is too long")
			}
		}
		return &constant{value}
	case number:
		return &constant{t.value}
	case operator:
		p.enter()
		defer p.leave()
		switch t.text {
		case "(":
			value := p.tuple(tupleOptions{conditional: true, explicit: true})
			p.expectOp(")")
			return value
		case "[":
			n := &listExpr{at: t.at}
			for !p.isOp("]") {
				if len(n.items) > 0 {
					if p.expectOp(","); p.isOp("]") {
						break
					}
				}
				n.items = append(n.items, p.expression())
			}
			p.expectOp("]")
			return n
		case "{":
			n := &dictExpr{at: t.at}
			for !p.isOp("}") {
				if len(n.keys) > 0 {
					if p.expectOp(","); p.isOp("}") {
						break
					}
				}
				n.keys = append(n.keys, p.expression())
				p.expectOp(":")
				n.values = append(n.values, p.expression())
			}
			p.expectOp("}")
			return n
		}
		p.next--
	default:
		p.next = max(p.next-1, 0)
	}
	p.fail("expected an expression")
	return nil
}

func (p *parser) postfix(value expr) expr {
	for {
		switch {
		case p.isOp("."):
			at := p.take().at
			switch t := p.take(); {
			case t.kind == name:
				value = &attributeExpr{at, value, t.text}
			case t.kind == number && isInt(t.value):
				value = &itemExpr{at, value, &constant{t.value}}
			default:
				p.next--
				p.fail("expected a name or an integer")
			}
		case p.isOp("["):
			p.enter()
			at := p.take().at
			var list []expr
			for !p.isOp("]") {
				if len(list) > 0 {
					p.expectOp(",")
				}
				list = append(list, p.subscript(at))
			}
			p.expectOp("]")
			p.leave()
			if len(list) == 1 {
				if s, is := list[0].(*sliceExpr); is && s.value == nil {
					s.value = value
					value = s
				} else {
					value = &itemExpr{at, value, list[0]}
				}
				continue
			}
			for _, item := range list {
				if s, is := item.(*sliceExpr); is && s.value == nil {
					p.fail("a slice among several subscripts: not supported")
				}
			}
			value = &itemExpr{at, value, &listExpr{at: at, items: list, tuple: true}}
		case p.isOp("("):
			value = p.call(value)
		default:
			return value
		}
	}
}

func isInt(v any) bool { _, is := v.(int64); return is }

func (p *parser) subscript(at int) expr {
	var bounds [3]expr
	if !p.isOp(":") {
		if bounds[0] = p.expression(); !p.isOp(":") {
			return bounds[0]
		}
	}
	for i := 1; i < 3 && p.skipOp(":"); i++ {
		if !p.isOp(":") && !p.isOp("]") && !p.isOp(",") {
			bounds[i] = p.expression()
		}
	}
	return &sliceExpr{at: at, bounds: bounds}
}

func (p *parser) call(function expr) expr {
	at := p.peek().at
	return &callExpr{at: at, function: function, arguments: p.arguments()}
}

func (p *parser) arguments() arguments {
	p.enter()
	defer p.leave()
	p.expectOp("(")
	var a arguments
	ensure := func(right bool) {
		if !right {
			p.fail("arguments in a wrong order")
		}
	}
	for first := true; !p.isOp(")"); first = false {
		if !first {
			if p.expectOp(","); p.isOp(")") {
				break
			}
		}
		switch {
		case p.skipOp("*"):
			ensure(a.list == nil && a.dict == nil)
			a.list = p.expression()
		case p.skipOp("**"):
			ensure(a.dict == nil)
			a.dict = p.expression()
		case p.peek().kind == name && p.look().kind == operator && p.look().text == "=":
			ensure(a.dict == nil)
			n := p.take().text
			p.take()
			if slices.Contains(a.names, n) {
				p.fail("an argument is given twice")
			}
			a.names = append(a.names, n)
			a.named = append(a.named, p.expression())
		default:
			ensure(a.list == nil && a.dict == nil && len(a.names) == 0)
			a.positional = append(a.positional, p.expression())
		}
	}
	p.expectOp(")")
	return a
}

func (p *parser) dotted() (string, int) {
	t := p.expect(name, "a name")
	full := t.text
	for p.skipOp(".") {
		full += "." + p.expect(name, "a name").text
	}
	return full, t.at
}

// filters reads |a|b(c). The value is nil for a filter block and for {% set x | f %}; inline stands
// for the first bar.
func (p *parser) filters(value expr, inline bool) expr {
	for inline || p.isOp("|") {
		if !inline {
			p.take()
		}
		inline = false
		n, at := p.dotted()
		f := &filterExpr{at: at, value: value, name: n}
		if p.isOp("(") {
			f.arguments = p.arguments()
		}
		if _, known := filters[n]; !known {
			p.missing("filter", n, at, unsupportedFilters)
		}
		value = f
	}
	return value
}

// missing keeps that a filter or test does not exist, or refuses it where only this package lacks
// it.
func (p *parser) missing(what, n string, at int, unsupported []string) {
	if slices.Contains(unsupported, n) {
		panic(stop{newError(p.source, at, fmt.Sprintf("the %s %q: not supported", what, n))})
	}
	p.unknown = append(p.unknown, newError(p.source, at, fmt.Sprintf("a %s that Jinja2 does not have", what)))
}

func (p *parser) check(value expr) expr {
	at := p.take().at
	negated := p.skipName("not")
	n, _ := p.dotted()
	c := &checkExpr{at: at, value: value, name: n}
	switch t := p.peek(); {
	case p.isOp("("):
		c.arguments = p.arguments()
	case t.kind == name && t.text == "is":
		p.fail("two tests in a row")
	case t.kind == name && t.text != "else" && t.text != "or" && t.text != "and", t.kind == text, t.kind == number, p.isOp("["), p.isOp("{"):
		c.arguments.positional = []expr{p.postfix(p.primary())}
	}
	if _, known := checks[n]; !known {
		p.missing("test", n, at, unsupportedChecks)
	}
	if negated {
		return &notExpr{at, c}
	}
	return c
}
