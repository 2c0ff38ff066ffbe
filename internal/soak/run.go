package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// Runner runs parts. Set the fields before the first run.
type Runner struct {
	Root    string // the clone
	Folder  string // where parts keep what they did, and inputs that failed
	Quick   bool   // the form of seconds: nothing is kept
	Restart bool   // forget what an unfinished part did
	Commit  string // of the code that runs
	Machine string // for docs/reliability.md
	Out     io.Writer
	Every   time.Duration // between lines of progress; 10 seconds if 0
}

// Folder is where the parts of a clone keep what they did.
func Folder(root string) string { return filepath.Join(root, asset.SetupDir, "soak") }

// Outcome is how a sitting ended.
type Outcome struct {
	Finished bool     // the part has done all that it wanted
	Failures []string // lines, of all sittings
}

// Run runs a part until it is finished or ctx ends. A finished full run writes the part's row into
// docs/reliability.md. An error says that the part could not run; what it did so far is kept.
func (r *Runner) Run(ctx context.Context, p Part) (outcome Outcome, err error) {
	folder := filepath.Join(r.Folder, p.Name)
	if r.Quick {
		temporary, err := os.MkdirTemp("", "soak-"+p.Name+"-")
		if err != nil {
			return outcome, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
		folder = temporary
	}
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		return outcome, err
	}
	path := filepath.Join(r.Folder, p.Name+".json")
	s := &Sitting{Quick: r.Quick, Root: r.Root, ctx: ctx, name: p.Name, folder: folder,
		failures: filepath.Join(r.Folder, "failures"), since: map[string]time.Time{}, at: "begins"}
	if !r.Quick {
		lock := flock.New(filepath.Join(r.Folder, p.Name+".lock"))
		if got, err := lock.TryLock(); err != nil || !got {
			return outcome, errors.Join(fmt.Errorf("the part %s runs already", p.Name), err)
		}
		defer func() { err = errors.Join(err, lock.Unlock()) }()
		if s.state, err = readState(path); err != nil && !r.Restart {
			return outcome, err
		}
		if s.state.Finished || r.Restart {
			s.state = state{}
			if err := os.RemoveAll(folder); err != nil {
				return outcome, err
			}
		}
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return outcome, err
	}
	if !slices.Contains(s.state.Commits, r.Commit) {
		s.state.Commits = append(s.state.Commits, r.Commit)
	}
	start := time.Now()
	stop := r.watch(s, start, path)
	err = p.Run(ctx, s)
	stop()
	fmt.Fprintln(r.Out, s.progress(time.Since(start)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Spent += time.Since(start)
	s.state.Finished = err == nil && ctx.Err() == nil
	outcome = Outcome{s.state.Finished, s.state.Failures}
	if ctx.Err() != nil {
		err = nil // what the end of the sitting made fail
	}
	if r.Quick {
		return outcome, err
	}
	err = errors.Join(err, s.state.write(path))
	if outcome.Finished {
		err = errors.Join(err, os.RemoveAll(folder), r.report(p, s.state))
	}
	return outcome, err
}

// watch prints how far a sitting is and keeps its state, until the returned function is called.
func (r *Runner) watch(s *Sitting, start time.Time, path string) (stop func()) {
	every := r.Every
	if every == 0 {
		every = 10 * time.Second
	}
	fmt.Fprintln(r.Out, s.progress(0))
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticks.C:
			}
			spent := time.Since(start)
			fmt.Fprintln(r.Out, s.progress(spent))
			if r.Quick {
				continue
			}
			s.mu.Lock()
			kept := s.state
			kept.Spent += spent
			if err := kept.write(path); err != nil {
				fmt.Fprintf(r.Out, "soak %s: not kept: %v\n", s.name, err)
			}
			s.mu.Unlock()
		}
	})
	return func() {
		close(done)
		group.Wait()
	}
}
