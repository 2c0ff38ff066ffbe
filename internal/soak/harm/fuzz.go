package harm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kvqbook/kvqbook/internal/soak"
)

var fuzz = soak.Part{
	Name:    "fuzz",
	Promise: "A damaged or hostile file or answer is refused in one line, or is read and used without harm.",
	Test:    "the seeds and finds of all fuzz targets; `TestQuick/fuzz` in `internal/soak/harm`",
	Run:     runFuzz,
}

// target is a fuzz target: a folder of the clone and a function of its tests.
type target struct{ folder, name string }

func (t target) String() string { return t.folder + " " + t.name }

// targets are all fuzz targets of the clone. The first is the quick form's.
var targets = []target{
	{"internal/jinja", "FuzzTemplate"}, // with the fewest imports
	{"internal/oracle", "FuzzQuantize"},
	{"internal/compiled", "FuzzSlim"},
	{"llama/modelfile", "FuzzGGUF"},
	{"llama/modelfile", "FuzzSafetensors"},
	{"llama/modelfile", "FuzzIndex"},
	{"llama/modelfile", "FuzzConfig"},
	{"llama", "FuzzLoadGGUF"},
	{"llama/calibration", "FuzzRead"},
	{"tokenizer", "FuzzTokenizerJSON"},
	{"tokenizer", "FuzzTokenizerConfig"},
	{"tokenizer", "FuzzSentencePiece"},
	{"tokenizer", "FuzzRoundTrip"},
	{"hub", "FuzzAnswers"},
	{"kvq", "FuzzLoad"},
	{"kvq", "FuzzStep"},
	{"kvq", "FuzzSequences"},
	{"kvq", "FuzzLayerBits"},
	{"kvq/internal/numbers", "FuzzQuantizers"},
}

// fuzzHour is the time of all targets together.
const fuzzHour = time.Hour

func runFuzz(ctx context.Context, s *soak.Sitting) error {
	list, span := targets, soak.Span{Quick: time.Second, Full: fuzzHour / time.Duration(len(targets))}
	if s.Quick {
		list = targets[:1]
	}
	for _, t := range list {
		for s.Within(t.String(), span) {
			// A sitting may be stopped, and a find ends a run: the next goes on with the inputs
			// that go test has found interesting so far.
			failed, err := fuzzOnce(ctx, s, t, span, s.Left(t.String(), span))
			if err != nil {
				return err
			}
			if failed {
				break
			}
		}
		if s.Quick || ctx.Err() != nil || s.Tried(t.String()) > 0 {
			continue
		}
		// Its time went by in building.
		if _, err := fuzzOnce(ctx, s, t, span, leastFuzz); err != nil {
			return err
		}
		if ctx.Err() == nil && s.Tried(t.String()) == 0 {
			return fmt.Errorf("%s: no input was tried in %s", t, leastFuzz)
		}
	}
	s.Note("Inputs that were found interesting are kept by go test; finds are seeds under testdata/fuzz")
	return nil
}

var (
	executions = regexp.MustCompile(`execs: (\d+) `)
	written    = regexp.MustCompile(`Failing input written to (\S+)`)
)

// leastFuzz is what a target gets that has not tried an input.
const leastFuzz = time.Minute

// fuzzOnce fuzzes one target for a time, of which what lies within span counts. It reports whether
// an input failed.
func fuzzOnce(ctx context.Context, s *soak.Sitting, t target, span soak.Span, limit time.Duration) (failed bool, err error) {
	seconds := max(1, int(limit.Round(time.Second).Seconds()))
	cmd := exec.CommandContext(ctx, "go", "test", "./"+t.folder, "-run", "^$", "-fuzz", "^"+t.name+"$",
		"-fuzztime", fmt.Sprintf("%ds", seconds),
		// Minimizing what takes XLA a second to try is not worth its time.
		"-fuzzminimizetime", "1x",
		"-parallel", strconv.Itoa(runtime.GOMAXPROCS(0)))
	cmd.Dir = s.Root
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		return false, err
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		_ = in.Close()
		ended <- err
	}()
	var tail []string
	count, input := 0, ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		if m := executions.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			s.Tries(t.String(), n-count)
			count = n
		}
		if m := written.FindStringSubmatch(line); m != nil {
			input = m[1]
		}
		if tail = append(tail, line); len(tail) > 40 {
			tail = tail[1:]
		}
		s.Left(t.String(), span) // for the lines of progress
	}
	err = <-ended
	text := strings.Join(tail, "\n")
	var exit *exec.ExitError
	switch {
	case err == nil || ctx.Err() != nil:
		return false, nil
	case !errors.As(err, &exit):
		return false, err
	case count == 0 && !strings.Contains(text, "--- FAIL"):
		return false, fmt.Errorf("%s does not run: %s", t, text) // it does not build
	}
	data := []byte(text)
	if input != "" {
		if seed, err := os.ReadFile(filepath.Join(s.Root, t.folder, input)); err == nil {
			data = seed
		}
	}
	s.Fail(data, "%s: %s", t, text)
	return true, nil
}
