package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: what kvq has for a terminal, and the side where a person sits.
type terminal struct {
	kvq, person *os.File
	mu          sync.Mutex
	screen      bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	// Through SyscallConn, since Fd would make the file block and Close wait for a read.
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	_ = raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	kvq, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { kvq.Close() })
	term := &terminal{kvq: kvq, person: person}
	go func() {
		buffer := make([]byte, 1024)
		for {
			n, err := person.Read(buffer)
			term.mu.Lock()
			term.screen.Write(buffer[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term
}

// shown is what the screen has.
func (term *terminal) shown() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.screen.String()
}

// echo says whether the terminal shows what is typed.
func (term *terminal) echo(t *testing.T) bool {
	state, err := unix.IoctlGetTermios(int(term.kvq.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

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
