package harm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/soak"
)

var memory = soak.Part{
	Name:    "too-little-memory",
	Promise: "Where a control group allows too little memory, kvq says so in one line and ends with a status of its own; it is not killed.",
	Test:    "`TestGroupsWithLimits` in `internal/soak/harm`",
	Run:     runMemory,
}

// runMemory generates in control groups that allow less and less memory. The quick form makes and
// removes a group; running kvq takes longer than seconds.
func runMemory(ctx context.Context, s *soak.Sitting) error {
	group, err := newGroup(1 << 30)
	if err != nil {
		s.Untried("control groups cannot be made here (%v)", err)
		return nil
	}
	if err := group.remove(); err != nil || s.Quick {
		return err
	}
	kvq, err := program(ctx, s)
	if err != nil || ctx.Err() != nil {
		return err
	}
	random := s.Random()
	for _, scale := range []int{32, 8} {
		model, err := randomModel(s, scale)
		if err != nil {
			return err
		}
		stage := fmt.Sprintf("kvq generate with Llama-2's layout over %d, 100 to 700 MiB", scale)
		for s.More(stage, soak.Amount{Full: 20}) {
			mib := 100 + random.IntN(600)
			group, err := newGroup(int64(mib) << 20)
			if err != nil {
				return err
			}
			cmd := group.command(ctx, kvq, "generate", "--model", model, "--max-new-tokens", "4", "--prompt", "hi")
			cmd.Env = environment("KVQ_COMPILED=off")
			r, err := run(cmd)
			if err := errors.Join(err, group.remove()); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
			s.Try(stage)
			switch lines := strings.Count(strings.TrimSpace(r.stderr), "\n"); {
			case r.status == 0:
				s.Count("runs that fitted", 1)
			case (r.status == 1 || r.status == 2) && lines == 0 && strings.HasPrefix(r.stderr, "kvq: "):
				s.Count("refused in a line", 1)
			default:
				s.Fail([]byte(r.String()), "over %d, %d MiB: %s", scale, mib, r)
			}
		}
	}
	return nil
}

// group is a control group with a limit of memory.
type group struct {
	dir       string
	processes string // the file of process ids
}

// newGroup makes a control group, of version 2 or else 1.
func newGroup(bytes int64) (g group, err error) {
	for _, v := range []struct{ top, limit string }{{"/sys/fs/cgroup", "memory.max"}, {"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}} {
		var dir string
		if dir, err = os.MkdirTemp(v.top, "kvq-soak-"); err != nil {
			continue
		}
		g = group{dir: dir, processes: filepath.Join(dir, "cgroup.procs")}
		if _, err = os.Stat(filepath.Join(dir, v.limit)); err == nil {
			if err = os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.FormatInt(bytes, 10)), 0o644); err == nil {
				return g, nil
			}
		}
		_ = os.Remove(dir)
	}
	return group{}, err
}

// command runs in the group from its start.
func (g group) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, g.processes, name}, args...)...)
}

// remove removes a group that has no processes any more.
func (g group) remove() (err error) {
	for range 50 {
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond) // what was killed is still being cleared away
	}
	return err
}
