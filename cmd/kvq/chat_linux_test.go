package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// At a terminal Ctrl-C stops an answer within a second and keeps its text; the chat goes on. At the
// empty line it ends the chat.
func TestChatAtATerminal(t *testing.T) {
	testlane.OnlyAll(t, "waits for a process that compiles")
	needsXLA(t)
	model := tinyModel(t, func(c map[string]any) { c["max_position_embeddings"] = 1 << 20 })
	term := newTerminal(t)
	c := exec.Command(os.Args[0], "chat", "--model", model, "--cache", "full", "--max-new-tokens", "900000", "--min-new-tokens", "900000", "--seed", "1")
	c.Env = append(os.Environ(), asKVQ+"=1")
	c.Stdin, c.Stdout, c.Stderr = term.kvq, term.kvq, term.kvq
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*patience, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	// wait is until so many of what are on the screen.
	wait := func(what string, n int) time.Duration {
		start := time.Now()
		for strings.Count(term.shown(), what) < n {
			if time.Since(start) > patience {
				t.Fatalf("%q not %d times on the screen: %.2000q", what, n, term.shown())
			}
			time.Sleep(5 * time.Millisecond)
		}
		return time.Since(start)
	}
	say := func(text string) {
		if _, err := term.person.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	characters := func() (n int) { // of messages and answers
		for _, r := range term.shown() {
			if r >= 0x4e00 && r < 0x4e00+tinyVocab {
				n++
			}
		}
		return n
	}
	answered := func() { // until an answer is long
		for n, start := characters(), time.Now(); characters() < n+100; time.Sleep(5 * time.Millisecond) {
			if time.Since(start) > patience {
				t.Fatalf("no answer: %.2000q", term.shown())
			}
		}
	}
	wait(">>> ", 1)
	say(tinyText(5, 6, 7) + "\n")
	answered()
	for turn := range 2 {
		_ = c.Process.Signal(os.Interrupt)
		if took := wait(">>> ", turn+2); took > time.Second {
			t.Errorf("turn %d: the answer went on for %v", turn, took)
		}
		if turn == 0 {
			say(tinyText(8) + "\n")
			answered()
		}
	}
	if got := strings.Count(term.shown(), "(stopped)"); got != 2 {
		t.Errorf("(stopped) %d times on the screen, want twice", got)
	}
	say("/stats\n")
	wait("tokens kept", 1)
	if strings.Contains(term.shown(), " 0 tokens kept") {
		t.Errorf("nothing was kept of the answer that was stopped: %q", term.shown()[len(term.shown())-600:])
	}
	wait(">>> ", 4)
	_ = c.Process.Signal(os.Interrupt)
	_ = c.Wait() // its status is what counts
	if got := c.ProcessState.ExitCode(); got != exitInterrupted {
		t.Errorf("status %d, want %d", got, exitInterrupted)
	}
}
