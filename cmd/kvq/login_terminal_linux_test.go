package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// await waits until something is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// On a terminal the token is asked for and not shown, and the terminal is as before, also after
// Ctrl-C.
func TestLoginOnATerminal(t *testing.T) {
	u := newHubUser(t, "")
	start := func(term *terminal) *exec.Cmd {
		c := exec.Command(os.Args[0], "login")
		c.Env = append(os.Environ(), asKVQ+"=1")
		c.Stdin, c.Stdout, c.Stderr = term.kvq, term.kvq, term.kvq
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill() })
		await(t, "the question", func() bool { return strings.Contains(term.shown(), "token (it is not shown): ") && !term.echo(t) })
		return c
	}
	term := newTerminal(t)
	c := start(term)
	if _, err := term.person.WriteString(licensed + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, term.shown())
	}
	await(t, "the answer", func() bool { return strings.Contains(term.shown(), "logged in as reader") })
	u.all.WriteString(term.shown())
	if !term.echo(t) {
		t.Error("the terminal is left without echo")
	}
	if text, err := os.ReadFile(filepath.Join(u.home, "token")); string(text) != licensed {
		t.Errorf("%d bytes stored, %v", len(text), err)
	}

	term = newTerminal(t)
	c = start(term)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its status is what counts
	if got := c.ProcessState.ExitCode(); got != exitInterrupted || !term.echo(t) {
		t.Errorf("status %d, want %d; echo: %v, want it back; %s", got, exitInterrupted, term.echo(t), term.shown())
	}
}
