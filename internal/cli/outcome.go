package cli

import (
	"context"
	"os"
	"sync"
)

// Outcome prints a command's results exactly once: at its end, or earlier, when the user interrupts
// it while a call hangs that cannot be cut short. The zero value has nothing to print. Safe for
// concurrent use.
type Outcome struct {
	mu       sync.Mutex
	printed  bool
	partial  func()
	onSignal func(os.Signal) bool
}

// OnSignal lets the command take Ctrl-C and SIGTERM for itself, such as for one answer of many:
// taken is called for each and says whether the command goes on. nil: each ends the command.
func (o *Outcome) OnSignal(taken func(os.Signal) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.onSignal = taken
}

// Signal tells whether the command takes a signal for itself.
func (o *Outcome) Signal(s os.Signal) bool {
	o.mu.Lock()
	taken := o.onSignal
	o.mu.Unlock()
	return taken != nil && taken(s)
}

// OnInterrupt sets what Interrupt prints.
func (o *Outcome) OnInterrupt(partial func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.partial = partial
}

// Print prints the results, unless that was done. Afterwards Interrupt prints nothing.
func (o *Outcome) Print(print func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.printed {
		return nil
	}
	o.printed = true
	return print()
}

// End is the end of a command that ran into err, or nil. The results are printed if err is nil, and
// also if the command was interrupted, with what there is by then. A failure prints nothing.
func (o *Outcome) End(ctx context.Context, err error, print func() error) error {
	if err != nil && ctx.Err() == nil {
		return err
	}
	if printErr := o.Print(print); printErr != nil {
		return printErr
	}
	return err
}

// Interrupt prints what there is, unless the results were printed. A command that still runs cannot
// print afterwards.
func (o *Outcome) Interrupt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.printed && o.partial != nil {
		o.partial()
	}
	o.printed = true
}

// Update runs f under the same lock, unless the results were printed. f changes the results or
// prints a part of them.
func (o *Outcome) Update(f func() error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.printed {
		return nil
	}
	return f()
}

type outcomeKey struct{}

// WithOutcome makes o the outcome of the command that runs with the context.
func WithOutcome(ctx context.Context, o *Outcome) context.Context {
	return context.WithValue(ctx, outcomeKey{}, o)
}

// OutcomeOf returns the outcome of the running command, or one that nobody will ask for.
func OutcomeOf(ctx context.Context) *Outcome {
	if o, ok := ctx.Value(outcomeKey{}).(*Outcome); ok {
		return o
	}
	return &Outcome{}
}
