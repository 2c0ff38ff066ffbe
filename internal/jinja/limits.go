package jinja

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits bounds one rendering. The zero value of a field stands for that of [DefaultLimits].
type Limits struct {
	Work   int           // units: a node evaluated, an item visited, 64 bytes read or made
	Made   int           // bytes of all values made on the way
	Output int           // bytes of the text that comes out
	Depth  int           // nested calls, expressions and values
	Time   time.Duration // on the clock; Work ends it long before where the machine is idle
}

// DefaultLimits are the bounds for values of the given size in bytes: a template may do more with a
// long conversation.
func DefaultLimits(input int) Limits {
	return Limits{Work: 3_000_000 + 16*input, Made: 32<<20 + 64*input, Output: 1<<20 + 16*input, Depth: 400, Time: 10 * time.Second}
}

const (
	maxSource  = 512 << 10 // bytes of a template; the longest known ones have 40 kB
	maxNesting = 100       // brackets and blocks within each other
	maxRaised  = 300       // bytes of what raise_exception says
)

// Error says why a template could not be parsed or rendered. It holds nothing of the template's
// text, but for Raised.
type Error struct {
	Line, Column int    // where, from 1; 0 where no place is known
	Message      string // one line
	Raised       bool   // the template itself objects, by raise_exception: Message is its text
}

func (e *Error) Error() string {
	if e.Raised || e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// newError makes an error of a place in the source.
func newError(source string, at int, message string) *Error {
	at = min(max(at, 0), len(source))
	before := source[:at]
	line := strings.LastIndexByte(before, '\n') + 1
	return &Error{Line: strings.Count(before, "\n") + 1, Column: utf8.RuneCountInString(before[line:]) + 1, Message: message}
}

// stop carries an error up to the entry point. Parser and interpreter panic with it; both entry
// points recover it.
type stop struct{ err error }

// failed is the beginning of the message for a fault of this package itself. It is an error, too: a
// template never ends a program.
const failed = "the interpreter of templates failed: "

func recovered(err *error) {
	switch r := recover().(type) {
	case nil:
	case stop:
		*err = r.err
	default:
		*err = &Error{Message: failed + oneLine(fmt.Sprint(r))}
	}
}

// run is one rendering.
type run struct {
	ctx    context.Context
	now    func() time.Time
	source string
	limits Limits

	at       int // place in the source of the node being evaluated
	work     int
	nextLook int // the work at which context and clock are looked at next
	made     int
	depth    int
	deadline time.Time
	output   *buffer // the text that comes out in the end
}

func (r *run) fail(format string, args ...any) {
	panic(stop{newError(r.source, r.at, fmt.Sprintf(format, args...))})
}

// unsupported refuses what Jinja2 can do and this package cannot.
func (r *run) unsupported(format string, args ...any) {
	r.fail("%s: not supported", fmt.Sprintf(format, args...))
}

// step counts n units of work.
func (r *run) step(n int) {
	r.work += n
	if r.work < r.nextLook {
		return
	}
	if r.work > r.limits.Work {
		r.fail("the template does too much work, want at most %d steps", r.limits.Work)
	}
	r.nextLook = min(r.work+4096, r.limits.Work+1)
	if err := r.ctx.Err(); err != nil {
		panic(stop{context.Cause(r.ctx)})
	}
	if time.Now().After(r.deadline) {
		r.fail("the template takes too long, want at most %v", r.limits.Time)
	}
}

// read counts bytes that are looked at.
func (r *run) read(n int) { r.step(n/64 + 1) }

// take counts bytes before they are made.
func (r *run) take(n int) {
	if n < 0 || n > r.limits.Made-r.made {
		r.fail("the template makes too many values, want at most %d bytes of them on the way", r.limits.Made)
	}
	r.made += n
	r.read(n)
}

// bytesPerItem is what a list takes for an item.
const bytesPerItem = 16

// takeItems counts the items of a list before they are made.
func (r *run) takeItems(n int) {
	if n < 0 || n > r.limits.Made/bytesPerItem {
		r.fail("the template makes too long a list, want at most %d bytes of values on the way", r.limits.Made)
	}
	r.take(n * bytesPerItem)
}

// enter and leave bound how deep calls, expressions and values are nested.
func (r *run) enter() {
	if r.depth++; r.depth > r.limits.Depth {
		r.fail("the template is nested too deeply, want at most %d levels of calls and expressions", r.limits.Depth)
	}
}

func (r *run) leave() { r.depth-- }

// buffer collects text.
type buffer struct{ strings.Builder }

func (r *run) write(to *buffer, text string) {
	r.take(len(text))
	if to == r.output && to.Len()+len(text) > r.limits.Output {
		r.fail("the template's text is too long, want at most %d bytes", r.limits.Output)
	}
	to.WriteString(text)
}

// oneLine is a text with its control characters made blanks, cut to maxRaised bytes.
func oneLine(s string) string {
	if len(s) > maxRaised {
		s = strings.ToValidUTF8(s[:maxRaised], "") + "…"
	}
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, s))
}
