package soak

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// Sitting is one run of a part, from a start or a resumption to its end or a stop. Its methods are
// safe for concurrent use.
type Sitting struct {
	Quick bool   // the form of seconds, which keeps nothing
	Root  string // the clone

	ctx      context.Context
	name     string
	folder   string // kept between sittings
	failures string // folder of the inputs that failed

	mu    sync.Mutex
	state state
	at    string               // what is being done
	since map[string]time.Time // when Within was last asked, by stage
}

// Folder is a folder of the part's own. It is there, and is kept between sittings until the part is
// finished.
func (s *Sitting) Folder() string { return s.folder }

// More reports whether a stage wants another try: call it in the condition of a loop whose body
// ends with [Sitting.Try] of the same stage. It is false once the sitting is over.
func (s *Sitting) More(stage string, want Amount) bool {
	n := want.Full
	if s.Quick {
		n = want.Quick
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.state.stage(stage).Tries
	s.at = fmt.Sprintf("%s, %d of %d", stage, done, n)
	return s.ctx.Err() == nil && done < n
}

// Within reports whether a stage's time is not used up: call it in the condition of a loop. The
// time between two calls with the same stage counts. It is false once the sitting is over.
func (s *Sitting) Within(stage string, want Span) bool { return s.Left(stage, want) > 0 }

// Left is how much of a stage's time is left, at least 0. It counts time as [Sitting.Within] does.
func (s *Sitting) Left(stage string, want Span) time.Duration {
	limit := want.Full
	if s.Quick {
		limit = want.Quick
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.state.stage(stage)
	now := time.Now()
	if last, running := s.since[stage]; running {
		one.Spent += now.Sub(last)
	}
	s.since[stage] = now
	s.at = fmt.Sprintf("%s, %s of %s", stage, short(one.Spent), short(limit))
	left := limit - one.Spent
	if s.ctx.Err() != nil || left <= 0 {
		delete(s.since, stage) // the stage ends, or is resumed by another sitting
		return 0
	}
	return left
}

// Try counts a try of a stage that has come to its end, well or not.
func (s *Sitting) Try(stage string) { s.Tries(stage, 1) }

// Tries counts n tries of a stage.
func (s *Sitting) Tries(stage string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.stage(stage).Tries += n
}

// Count adds to a figure of the row that is no try of its own, such as files found on the way.
func (s *Sitting) Count(what string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry(&s.state.Counts, what).Tries += n
}

// Tried is the number of a stage's tries, over all sittings.
func (s *Sitting) Tried(stage string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.stage(stage).Tries
}

// Fail reports that the promise did not hold, in one line, and keeps the input that shows it; nil
// where there is none beyond the line.
func (s *Sitting) Fail(input []byte, format string, args ...any) {
	line := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	s.mu.Lock()
	defer s.mu.Unlock()
	if input != nil {
		path := filepath.Join(s.failures, fmt.Sprintf("%s-%03d", s.name, len(s.state.Failures)+1))
		if err := errors.Join(os.MkdirAll(s.failures, 0o755), filesys.Write(path, input)); err != nil {
			line += fmt.Sprintf(" (the input could not be kept: %v)", err)
		} else {
			line += " (input: " + path + ")"
		}
	}
	s.state.Failures = append(s.state.Failures, line)
}

// Note adds a sentence to the row in docs/reliability.md: a figure, or what was found out. The same
// sentence counts once.
func (s *Sitting) Note(format string, args ...any) { s.add(&s.state.Notes, format, args...) }

// Untried says that something could not be tried on this machine, and why. The row names it.
func (s *Sitting) Untried(format string, args ...any) { s.add(&s.state.Untried, format, args...) }

func (s *Sitting) add(list *[]string, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, have := range *list {
		if have == text {
			return
		}
	}
	*list = append(*list, text)
}

// Keep remembers a value for later sittings: where the part was, the largest that it saw.
func (s *Sitting) Keep(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Values == nil {
		s.state.Values = map[string]string{}
	}
	s.state.Values[key] = value
}

// Kept returns what [Sitting.Keep] remembers, "" where there is nothing.
func (s *Sitting) Kept(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Values[key]
}

// Doing says what is being done, for the lines of progress, where no stage's name says it.
func (s *Sitting) Doing(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = fmt.Sprintf(format, args...)
}

// Random returns numbers that differ from sitting to sitting, and are the same again where a part
// is restarted.
func (s *Sitting) Random() *rand.Rand {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := fnv.New64a()
	h.Write([]byte(s.name))
	return rand.New(rand.NewPCG(h.Sum64(), uint64(s.state.tries())))
}

// progress is the line that is printed while the part runs.
func (s *Sitting) progress(spent time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("soak %s: %s, %d tries, %d failures: %s", s.name, short(s.state.Spent+spent), s.state.tries(), len(s.state.Failures), s.at)
}

// short prints a time for people.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	default:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
}
