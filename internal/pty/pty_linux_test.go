package pty

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What a program shows is kept with its time, and silence is counted at the beginning, between and
// at the end.
func TestTerminal(t *testing.T) {
	term, err := New(37)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	defer term.Close()
	c := exec.Command("sh", "-c", "stty size; printf one; sleep 1; printf two")
	c.Stdin, c.Stdout, c.Stderr = term.Program, term.Program, term.Program
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	on, err := term.Echo()
	if !on || err != nil {
		t.Errorf("echo %t, %v", on, err)
	}
	term.End()
	shown, moments := term.Shown(), term.Moments()
	if !strings.HasPrefix(shown, "24 37\r\n") || !strings.HasSuffix(shown, "onetwo") {
		t.Fatalf("shown %q", shown)
	}
	last := moments[len(moments)-1]
	if last.End != len(shown) || last.At < time.Second {
		t.Errorf("%v of %d bytes", moments, len(shown))
	}
	// A busy machine may see the first word late.
	if s := term.Silence(); s < 350*time.Millisecond || s > 5*time.Second {
		t.Errorf("silence %v", s)
	}
	time.Sleep(time.Until(term.begun.Add(last.At + 1500*time.Millisecond)))
	if s := term.Silence(); s < 1500*time.Millisecond {
		t.Errorf("silence at the end: %v", s)
	}
}
