package cli

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/stage"
)

// Status tells a person what a command is waiting for: on a terminal in one line that moves,
// elsewhere in a line for each stage that lasts, and another every ten seconds. A nil Status tells
// nothing. Safe for concurrent use.
type Status struct {
	w        io.Writer
	terminal bool
	now      func() time.Time

	mu     sync.Mutex
	stage  string // "" between stages
	detail string
	since  time.Time
	said   time.Time // when a line of the stage was last printed elsewhere; zero: not yet
	drawn  bool      // the line is on the screen
	closed bool
	ended  chan struct{}
}

const (
	frame     = 100 * time.Millisecond // between two looks at the clock
	lasting   = 500 * time.Millisecond // a stage that is worth a line where none can be taken back
	heartbeat = 10 * time.Second       // between two such lines
)

// RegisterQuiet adds --quiet.
func RegisterQuiet(fs *pflag.FlagSet, quiet *bool) {
	fs.BoolVarP(quiet, "quiet", "q", false, "do not tell what is being waited for")
}

// NewStatus tells on errs, or nothing if quiet. Close ends it.
func NewStatus(errs io.Writer, quiet bool) *Status {
	if quiet {
		return nil
	}
	s := &Status{w: errs, terminal: IsTerminal(errs), now: time.Now, ended: make(chan struct{})}
	go func() {
		tick := time.NewTicker(frame)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.tick()
			case <-s.ended:
				return
			}
		}
	}()
	return s
}

// Stage begins a stage. The same stage again goes on.
func (s *Status) Stage(format string, args ...any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fmt.Sprintf(format, args...)
	if name == s.stage || s.closed {
		return
	}
	s.stage, s.detail, s.since, s.said = name, "", s.now(), time.Time{}
	if s.terminal {
		s.draw()
	}
}

// Detail says how far the stage is.
func (s *Status) Detail(format string, args ...any) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detail = fmt.Sprintf(format, args...)
}

// Clear ends the stage and takes its line off the screen, for other output.
func (s *Status) Clear() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = ""
	s.erase()
}

// Close ends the telling for good.
func (s *Status) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = ""
	s.erase()
	if !s.closed {
		s.closed = true
		close(s.ended)
	}
}

// Context is ctx for calls that tell their own stages, as generations and evaluations do.
func (s *Status) Context(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return stage.WithHistory(stage.With(ctx, func(st stage.Stage) { s.Stage("%s", st) }), stage.Machine)
}

// tick moves the line on a terminal, and gives a sign of life elsewhere.
func (s *Status) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage == "" {
		return
	}
	switch now := s.now(); {
	case s.terminal:
		s.draw()
	case s.said.IsZero() && now.Sub(s.since) >= lasting:
		s.said = now
		fmt.Fprintf(s.w, "kvq: %s\n", s.stage)
	case !s.said.IsZero() && now.Sub(s.said) >= heartbeat:
		s.said = now
		fmt.Fprintf(s.w, "kvq: %s\n", s.line())
	}
}

// line is the stage with its time and how far it is.
func (s *Status) line() string {
	line := fmt.Sprintf("%s, %.0f s", s.stage, s.now().Sub(s.since).Seconds())
	if s.detail != "" {
		line += ", " + s.detail
	}
	return line
}

// draw shows the line on the screen, cut to its width: a line that wraps could not be taken back.
func (s *Status) draw() {
	columns, _ := TerminalSize(s.w)
	fmt.Fprintf(s.w, "\r%s\x1b[K", text.Trim(s.line(), columns-1))
	s.drawn = true
}

// erase takes the line off the screen.
func (s *Status) erase() {
	if s.drawn {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.drawn = false
	}
}
