package main

import (
	"context"
	"sync"
)

// lastWords prints a command's results exactly once: when it is done, or earlier, when the user interrupts it and it
// hangs in a call that cannot be cut short. The zero value has nothing to say. Safe for concurrent use.
type lastWords struct {
	mu   sync.Mutex
	said bool
	now  func()
}

// prepare sets what say prints.
func (w *lastWords) prepare(now func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = now
}

// finish prints the results, unless that was done. Afterwards say prints nothing.
func (w *lastWords) finish(print func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said {
		return nil
	}
	w.said = true
	return print()
}

// end is the end of a command that ran into err, or nil: results are printed then, and also when the command was interrupted, with what there
// is by then. A failure prints nothing.
func (w *lastWords) end(ctx context.Context, err error, print func() error) error {
	if err != nil && ctx.Err() == nil {
		return err
	}
	if printErr := w.finish(print); printErr != nil {
		return printErr
	}
	return err
}

// say prints what there is, unless the results were printed. What runs on cannot print afterwards.
func (w *lastWords) say() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.said && w.now != nil {
		w.now()
	}
	w.said = true
}

// while runs f with the same lock, unless the last word was said: for output that is printed as it comes.
func (w *lastWords) while(f func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.said {
		return nil
	}
	return f()
}

type lastWordsKey struct{}

func withLastWords(ctx context.Context, w *lastWords) context.Context {
	return context.WithValue(ctx, lastWordsKey{}, w)
}

// lastWordsOf returns those of the running command.
func lastWordsOf(ctx context.Context) *lastWords {
	if w, ok := ctx.Value(lastWordsKey{}).(*lastWords); ok {
		return w
	}
	return &lastWords{} // nobody will ask for them
}
