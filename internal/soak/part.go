// Package soak is the frame of ./scripts/soak: parts that try a promise for long, may be stopped
// and resumed, and write what came of it into docs/reliability.md.
//
// A [Part] says what is promised and has a function that tries it. The function asks its [Sitting]
// whether to go on, counts tries and reports failures there. What it did so far outlives the
// process. Package harm has the parts about files and processes, package models those that run
// models.
package soak

import (
	"context"
	"time"
)

// Part is one promise and how it is tried. Fill all fields.
type Part struct {
	// Name is the word on the command line.
	Name string
	// Promise is one sentence for a reader of docs/reliability.md.
	Promise string
	// Test says which tests hold the promise in ./scripts/test, in Markdown.
	Test string
	// Run tries the promise until it has done what it wanted, or ctx ends. Failures of the promise
	// go to s.Fail. An error says that the part itself could not go on.
	Run func(ctx context.Context, s *Sitting) error
}

// Amount is how many tries a stage of a part wants, in the quick form and in the full one.
type Amount struct{ Quick, Full int }

// Span is how long a stage of a part goes on, in the quick form and in the full one.
type Span struct{ Quick, Full time.Duration }

// Find returns the part of a name, and false where there is none.
func Find(parts []Part, name string) (Part, bool) {
	for _, p := range parts {
		if p.Name == name {
			return p, true
		}
	}
	return Part{}, false
}
