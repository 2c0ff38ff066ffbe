// Package stage lets a long call tell what it is waiting for, through its context: who calls may
// show it, and no function needs another argument. It works as net/http/httptrace does.
package stage

import (
	"context"
	"fmt"
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
}

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
