//go:build linux

// Package pty makes pseudo-terminals and keeps what is shown on them, with the time: how long a
// person looks at a screen on which nothing moves.
package pty

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo-terminal: the side that a program has for its terminal, and the side where a
// person sits, who reads all the time.
type Terminal struct {
	Program, Person *os.File

	mu     sync.Mutex
	screen bytes.Buffer
	shown  []Moment
	begun  time.Time
	read   chan struct{} // closed when nothing more can come
}

// Moment is when something was shown.
type Moment struct {
	At  time.Duration // since the terminal was made
	End int           // bytes on the screen by then
}

// New makes a terminal of so many columns and 24 lines. Close ends it.
func New(columns int) (*Terminal, error) {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	// Through SyscallConn, since Fd would make the file block and Close wait for a read.
	raw, err := person.SyscallConn()
	if err != nil {
		person.Close()
		return nil, err
	}
	var number int
	_ = raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	})
	if err != nil {
		person.Close()
		return nil, err
	}
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		person.Close()
		return nil, err
	}
	t := &Terminal{Program: program, Person: person, begun: time.Now(), read: make(chan struct{})}
	go t.watch()
	return t, nil
}

func (t *Terminal) watch() {
	defer close(t.read)
	buffer := make([]byte, 4096)
	for {
		n, err := t.Person.Read(buffer)
		if n > 0 {
			t.mu.Lock()
			t.screen.Write(buffer[:n])
			t.shown = append(t.shown, Moment{time.Since(t.begun), t.screen.Len()})
			t.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// End closes the program's side and waits until all that the program wrote has been read. The
// program has ended before.
func (t *Terminal) End() {
	t.Program.Close()
	<-t.read
}

// Close closes both sides.
func (t *Terminal) Close() {
	t.Program.Close()
	t.Person.Close()
}

// Shown is what came to the screen, escapes included.
func (t *Terminal) Shown() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.screen.String()
}

// Moments are the times at which something came to the screen.
func (t *Terminal) Moments() []Moment {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Moment{}, t.shown...)
}

// Silence is the longest time in which the screen did not change, until now.
func (t *Terminal) Silence() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last, longest time.Duration
	for _, m := range t.shown {
		longest, last = max(longest, m.At-last), m.At
	}
	return max(longest, time.Since(t.begun)-last)
}

// Echo says whether the terminal shows what is typed.
func (t *Terminal) Echo() (bool, error) {
	state, err := unix.IoctlGetTermios(int(t.Program.Fd()), unix.TCGETS)
	if err != nil {
		return false, err
	}
	return state.Lflag&unix.ECHO != 0, nil
}
