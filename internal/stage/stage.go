// Package stage lets a long call tell what it is waiting for, through its context: who calls may
// show it, and no function needs another argument. It works as net/http/httptrace does.
package stage

import (
	"context"
	"fmt"
	"time"
)

// Kind is what there is to wait for.
type Kind int

const (
	Compiling Kind = iota // XLA compiles a graph
	Prompt                // the model reads a prompt
	Tokens                // the model goes on token by token
)

// Stage is a stretch of waiting that has begun.
type Stage struct {
	Kind Kind
	Of   string // of Compiling: what the graph is for
	Rows int    // of Prompt and Tokens
	// of each row: read by Prompt, columns of padding included
	Columns int
	Before  time.Duration // of Compiling: how long it took the last time on this machine; 0: not known
}

// telling is the least that is worth telling of a wait before.
const telling = time.Second

// String says a stage in a few words.
func (s Stage) String() string {
	rows := func(of string) string {
		if s.Rows == 1 {
			return of
		}
		return fmt.Sprintf("%d rows: %s", s.Rows, of)
	}
	switch s.Kind {
	case Compiling:
		if s.Before >= telling {
			return fmt.Sprintf("compiling for %s (%.1f s last time here)", s.Of, s.Before.Seconds())
		}
		return "compiling for " + s.Of
	case Prompt:
		return rows(fmt.Sprintf("reading %d tokens", s.Columns))
	}
	return rows("going on token by token")
}

type key struct{}

// With is ctx for calls whose stages are told. told is called on the goroutine that waits.
func With(ctx context.Context, told func(Stage)) context.Context {
	return context.WithValue(ctx, key{}, told)
}

// Tell says that a stage begins.
func Tell(ctx context.Context, s Stage) {
	if told, ok := ctx.Value(key{}).(func(Stage)); ok {
		told(s)
	}
}

// History knows how long graphs were waited for before. A key tells apart all graphs on a machine.
type History interface {
	Last(key string) (time.Duration, bool)
	Took(key string, d time.Duration)
}

// Machine is this machine's history, nil where none is kept. The package that keeps compiled graphs
// sets it when it is initialized.
var Machine History

type historyKey struct{}

// WithHistory is ctx for calls that tell how long a wait took before, and remember how long it
// takes. h may be nil.
func WithHistory(ctx context.Context, h History) context.Context {
	return context.WithValue(ctx, historyKey{}, h)
}

// Compile tells that a graph is waited for, and returns what to call when it is there. key is ""
// where nothing tells the graph apart from those of other models; then nothing is remembered.
func Compile(ctx context.Context, key, of string) (done func()) {
	s := Stage{Kind: Compiling, Of: of}
	h, _ := ctx.Value(historyKey{}).(History)
	if h == nil || key == "" {
		Tell(ctx, s)
		return func() {}
	}
	if before, ok := h.Last(key); ok {
		s.Before = before
	}
	Tell(ctx, s)
	start := time.Now()
	return func() { h.Took(key, time.Since(start)) }
}
