package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/stage"
)

// clocked is a status whose time a test moves.
func clocked(w *bytes.Buffer, terminal bool) (s *Status, wait func(time.Duration)) {
	now := time.Unix(0, 0)
	s = &Status{w: w, terminal: terminal, now: func() time.Time { return now }, ended: make(chan struct{})}
	return s, func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(frame)
			s.tick()
		}
	}
}

// Where no line can be taken back, a stage that lasts gets one, and another every ten seconds.
func TestStatusElsewhere(t *testing.T) {
	var b bytes.Buffer
	s, wait := clocked(&b, false)
	wait(time.Minute) // nothing is waited for
	s.Stage("opening")
	wait(400 * time.Millisecond)
	s.Stage("compiling for %s", "prompts")
	wait(25 * time.Second)
	s.Detail("half")
	s.Stage("compiling for prompts") // goes on
	wait(10 * time.Second)
	s.Clear()
	wait(time.Minute)
	s.Close()
	s.Stage("too late")
	wait(time.Minute)
	want := "kvq: compiling for prompts\nkvq: compiling for prompts, 10 s\nkvq: compiling for prompts, 20 s\nkvq: compiling for prompts, 30 s, half\n"
	if got := strings.ReplaceAll(b.String(), ", 11 s", ", 10 s"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// On a terminal one line moves, is no wider than the screen, and is gone in the end.
func TestStatusOnATerminal(t *testing.T) {
	t.Setenv("COLUMNS", "30")
	var b bytes.Buffer
	s, wait := clocked(&b, true)
	ctx := s.Context(context.Background())
	stage.Tell(ctx, stage.Stage{Kind: stage.Compiling, Of: "prompts of 16 tokens, 2 rows"})
	wait(3 * time.Second)
	stage.Tell(ctx, stage.Stage{Kind: stage.Prompt, Rows: 2, Columns: 16})
	stage.Tell(ctx, stage.Stage{Kind: stage.Tokens, Rows: 1})
	s.Detail("3 of 20 tokens")
	wait(frame)
	s.Close()
	out := b.String()
	for _, want := range []string{"\rcompiling for prompts of 16 t\x1b[K", "\r2 rows: reading 16 tokens, 0 \x1b[K", "\rgoing on token by token, 0 s,\x1b[K"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in %q", want, out)
		}
	}
	if n := strings.Count(out, "\r"); n < 30 || !strings.HasSuffix(out, "\r\x1b[K") {
		t.Errorf("drawn %d times, want one for each tenth of a second; it ends with %q", n, out[len(out)-10:])
	}
	for _, line := range strings.Split(out, "\r") {
		if line = strings.TrimSuffix(line, "\x1b[K"); len(line) > 29 {
			t.Errorf("%q is %d columns wide, the screen has 30", line, len(line))
		}
	}
}

// Quiet is quiet.
func TestStatusQuiet(t *testing.T) {
	var b bytes.Buffer
	s := NewStatus(&b, true)
	s.Stage("x")
	s.Detail("y")
	s.Clear()
	s.Close()
	if ctx := context.Background(); s.Context(ctx) != ctx || b.Len() > 0 {
		t.Errorf("%q", b.String())
	}
}
