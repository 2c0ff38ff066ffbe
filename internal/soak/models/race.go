package models

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gomlx/go-xla/compute/xla"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/soak"
)

// Children that a program built with the race detector runs: the goroutines part for a while, and a
// control that opens the same plugin by go-xla alone and runs graphs in goroutines.
const (
	raceCrowd   = "race-goroutines"
	raceControl = "race-control"
)

func init() {
	soak.RegisterChild(raceCrowd, raceGoroutines)
	soak.RegisterChild(raceControl, func([]string) error { return raceWithoutKVQ() })
}

// raceTime is how long the goroutines go on under the detector.
const raceTime = 4 * time.Minute

// underRace builds this program with Go's race detector and runs the goroutines part in it. The
// detector knows Go's memory only, not XLA's. What a control without kvq shows too is the plugin's
// own.
func underRace(ctx context.Context, s *soak.Sitting) error {
	const stage = "runs under the race detector"
	want := soak.Amount{Quick: 0, Full: 2}
	if !s.More(stage, want) {
		return nil
	}
	program := filepath.Join(s.Folder(), "soak-race")
	if _, err := os.Stat(program); err != nil {
		s.Doing("builds with the race detector")
		build := exec.CommandContext(ctx, "go", "build", "-race", "-o", program, "./internal/cmd/soak")
		build.Dir = s.Root
		if out, err := build.CombinedOutput(); err != nil {
			if ctx.Err() == nil {
				s.Untried("the race detector: it does not build here: %s", last(out, 300))
			}
			return nil
		}
	}
	run := func(child string, args ...string) (races int, crash string, err error) {
		s.Doing("%s", child)
		cmd := s.Child(ctx, child, args...)
		cmd.Path = program
		cmd.Env = append(cmd.Env, "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err = cmd.Run()
		races = bytes.Count(out.Bytes(), []byte("WARNING: DATA RACE"))
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if races > 0 || exit.ExitCode() != 1 {
				err = nil
			}
			if exit.ExitCode() != 66 {
				crash = fmt.Sprintf("%v: %s", exit, last(out.Bytes(), 600))
			}
		}
		if races > 0 {
			crash = last(out.Bytes(), 4000)
		}
		return races, crash, err
	}
	controlRaces, controlCrash, err := run(raceControl)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the control: %w: %s", err, controlCrash)
	}
	s.Try(stage)
	races, crash, err := run(raceCrowd, raceTime.String())
	if ctx.Err() != nil {
		return nil
	}
	switch {
	case err != nil:
		s.Fail([]byte(crash), "under the race detector: %v", err)
	case races > controlRaces:
		s.Fail([]byte(crash), "%d races, %d in the control without kvq", races, controlRaces)
	case crash != "" && controlCrash == "":
		s.Fail([]byte(crash), "the process crashes under the race detector, and the control without kvq does not")
	case controlCrash != "":
		s.Note("Under the race detector a control without kvq ends with %q too", firstLine(controlCrash))
	}
	s.Note("%s under the race detector: %d races", raceTime, races)
	s.Try(stage)
	return nil
}

func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			return line
		}
	}
	return ""
}

// raceGoroutines is the goroutines part with two caches, for a time.
func raceGoroutines(args []string) error {
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "soak-race-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	part := soak.Part{Name: raceCrowd, Run: func(ctx context.Context, s *soak.Sitting) error {
		c, err := newCrowd(ctx, s, some("full", "balanced"))
		if err != nil {
			return err
		}
		defer c.end()
		span, random := soak.Span{Quick: limit}, s.Random()
		for s.Within("generations", span) {
			c.wave(ctx, s, "generations", random, ownShare, min(waveTime, s.Left("generations", span)))
		}
		return nil
	}}
	runner := soak.Runner{Root: folder, Folder: folder, Quick: true, Out: os.Stdout}
	outcome, err := runner.Run(context.Background(), part)
	if err != nil {
		return err
	}
	if len(outcome.Failures) > 0 {
		return errors.New(strings.Join(outcome.Failures, "\n"))
	}
	return nil
}

// raceWithoutKVQ compiles and runs graphs in goroutines.
func raceWithoutKVQ() error {
	path, err := asset.CPUPlugin()
	if err != nil {
		return err
	}
	b, err := xla.NewWithOptions(path, nil)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	failures := make(chan error, atOnce)
	for i := range atOnce {
		all.Go(func() {
			for range 20 {
				exec, err := NewExec(b, func(x *Node) *Node { return ReduceAllSum(MatMul(x, Transpose(x, 0, 1))) })
				if err != nil {
					failures <- err
					return
				}
				if _, err := exec.Exec(make2D(8+i, 16)); err != nil {
					failures <- err
					return
				}
				exec.Finalize()
			}
		})
	}
	all.Wait()
	close(failures)
	b.Finalize()
	return <-failures
}
