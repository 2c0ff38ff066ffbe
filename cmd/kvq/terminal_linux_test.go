package main

import (
	"os"
	"testing"

	"github.com/kvqbook/kvqbook/internal/pty"
)

// terminal is a pseudo-terminal that ends with the test.
type terminal struct {
	*pty.Terminal
	kvq, person *os.File // its sides
}

func newTerminal(t *testing.T) *terminal {
	term, err := pty.New(80)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(term.Close)
	return &terminal{term, term.Program, term.Person}
}

// shown is what the screen has.
func (term *terminal) shown() string { return term.Shown() }

// echo says whether the terminal shows what is typed.
func (term *terminal) echo(t *testing.T) bool {
	on, err := term.Echo()
	if err != nil {
		t.Fatal(err)
	}
	return on
}
