package nb

import (
	"context"
	"fmt"
	"html"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/janpfeifer/gonb/gonbui"

	"github.com/kvqbook/kvqbook/internal/stage"
)

// Live is output that changes while a cell runs: texts as they grow, and above them a line that
// says what the cell is waiting for, until Done takes that line away. Safe for concurrent use.
type Live struct {
	id      string // of the output in the notebook
	mu      sync.Mutex
	waiting string // "" for nothing
	since   time.Time
	drawn   time.Time
	texts   *Texts
	ended   chan struct{}
}

// NewLive begins such an output with what the cell waits for first.
func NewLive(waiting string) *Live {
	l := &Live{id: "live-" + gonbui.UniqueID(), ended: make(chan struct{})}
	l.Waiting(waiting)
	interrupts := make(chan os.Signal, 2) // GoNB passes one on that comes by itself too
	if gonbui.IsNotebook {
		signal.Notify(interrupts, os.Interrupt)
	}
	go func() {
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for {
			select {
			case <-second.C:
				l.mu.Lock()
				if l.waiting != "" {
					l.draw()
				}
				l.mu.Unlock()
			case <-interrupts:
				l.interrupted()
			case <-l.ended:
				signal.Stop(interrupts)
				return
			}
		}
	}()
	return l
}

// interrupted says what was waited for, where the line would else stay as if it went on, and ends
// the program by the signal that came.
func (l *Live) interrupted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting != "" {
		l.waiting = "interrupted: " + l.waiting
		l.draw()
		gonbui.Sync()
	}
	signal.Reset(os.Interrupt)
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Signal(os.Interrupt)
	}
	time.Sleep(time.Second) // the signal comes meanwhile
	os.Exit(130)
}

// Waiting says what the cell waits for now.
func (l *Live) Waiting(words string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if words == l.waiting {
		return
	}
	l.waiting, l.since = words, time.Now()
	l.draw()
}

// Progress says how far what the cell waits for has come. The seconds go on, and it may be called
// as often as there is something to say.
func (l *Live) Progress(words string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == "" {
		return // after Done
	}
	l.waiting = words
	if time.Since(l.drawn) > 250*time.Millisecond {
		l.draw()
	}
}

// Context is for calls that tell by themselves what they wait for, as generations do.
func (l *Live) Context() context.Context {
	return stage.With(context.Background(), func(s stage.Stage) { l.Waiting(s.String()) })
}

// Done takes the line away. The texts stay.
func (l *Live) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == "" {
		return
	}
	l.waiting = ""
	close(l.ended)
	l.draw()
	if gonbui.IsNotebook {
		flush()
	} else if l.texts != nil {
		fmt.Print(l.texts.plain())
	}
}

// draw shows the output as it is now.
func (l *Live) draw() {
	l.drawn = time.Now()
	if gonbui.IsNotebook {
		gonbui.UpdateHTML(l.id, l.html())
		return
	}
	if l.waiting != "" && time.Since(l.since) < time.Second {
		fmt.Fprintln(os.Stderr, l.waiting)
	}
}

func (l *Live) html() string {
	var b strings.Builder
	if l.waiting != "" {
		fmt.Fprintf(&b, "<p><i>%s, %.0f s</i></p>", html.EscapeString(l.waiting), time.Since(l.since).Seconds())
	}
	if l.texts != nil {
		b.WriteString(l.texts.html())
	}
	return b.String()
}
