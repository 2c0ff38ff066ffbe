package cli

import (
	"io"
	"sync"
)

// Written is a command's standard output. It remembers the first write that failed, so that a full
// disk is a failure of the command, whichever of its lines was lost.
type Written struct {
	to io.Writer

	mu  sync.Mutex
	err error
}

// NewWritten passes on what is written.
func NewWritten(to io.Writer) *Written { return &Written{to: to} }

func (w *Written) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err == nil {
			w.err = err
		}
	}
	return n, err
}

// Err is why the first write that failed did so; nil where all went well.
func (w *Written) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// behind is what a Written writes to, and anything else itself.
func behind(w any) any {
	if written, ok := w.(*Written); ok {
		return written.to
	}
	return w
}
