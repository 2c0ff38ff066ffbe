package doctor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
)

// Trial is what came of opening a device and running a graph on it.
type Trial struct {
	Error   string        `json:"error,omitempty"`   // in one line, "" where it ran
	Missing bool          `json:"missing,omitempty"` // there is no plugin to open
	Plugin  string        `json:"plugin,omitempty"`
	Version string        `json:"version,omitempty"` // of the PJRT interface
	Devices []string      `json:"devices,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// TryFlag is the flag by which a child of kvq doctor is told to call [Try].
const TryFlag = "try-device"

// Try opens a device in this process, and multiplies on it.
func Try(name string) Trial {
	begin := time.Now()
	backend, err := device.Open(name)
	if err != nil {
		return Trial{Error: err.Error(), Missing: errors.Is(err, asset.ErrNotFound)}
	}
	defer backend.Finalize()
	info := device.Describe(backend)
	t := Trial{Plugin: info.Plugin, Version: info.Version, Devices: info.Devices}
	product, err := ExecOnce(backend, func(x *Node) *Node { return ReduceAllSum(Mul(x, x)) }, []float32{1, 2, 3})
	switch {
	case err != nil:
		t.Error = err.Error()
	default:
		if got := product.Value(); got != float32(14) {
			t.Error = fmt.Sprintf("1*1 + 2*2 + 3*3 gave %v, want 14", got)
		}
	}
	t.Took = time.Since(begin)
	return t
}

// tryElsewhere is Try in a child: a plugin that does not fit the machine ends its process.
func tryElsewhere(ctx context.Context, name string) Trial {
	exe, err := os.Executable()
	if err != nil {
		return Trial{Error: err.Error()}
	}
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, exe, "doctor", "--"+TryFlag, name)
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	var t Trial
	switch {
	case ctx.Err() != nil:
		return Trial{Error: fmt.Sprintf("no answer within %s", longest)}
	case err != nil:
		return Trial{Error: fmt.Sprintf("the process that opened it ended: %v; %s", err, cmp.Or(lastWords(errs.String()), "it said nothing"))}
	}
	if err := json.Unmarshal(out.Bytes(), &t); err != nil {
		return Trial{Error: fmt.Sprintf("%v: %.200q", err, out.String())}
	}
	return t
}

// lastWords are the last two lines that a program said, before the registers and stacks that Go
// prints of a signal: XLA's reason, and the signal.
func lastWords(s string) string {
	s, _, _ = strings.Cut(s, "\nPC=")
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-2):], "; ")
}
