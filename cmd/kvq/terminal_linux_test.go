package main

import (
	"bytes"
	"fmt"
	"os"
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
	moved       time.Time     // when the screen last changed
	still       time.Duration // the longest time in which it did not
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
	term := &terminal{kvq: kvq, person: person, moved: time.Now()}
	go func() {
		buffer := make([]byte, 1024)
		for {
			n, err := person.Read(buffer)
			term.mu.Lock()
			term.screen.Write(buffer[:n])
			now := time.Now()
			term.still, term.moved = max(term.still, now.Sub(term.moved)), now
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
