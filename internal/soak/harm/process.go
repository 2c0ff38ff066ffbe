package harm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running command in a group of its own, whose output is kept.
type process struct {
	cmd   *exec.Cmd
	out   output
	ended chan error
}

// output keeps what is written to it. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data.String()
}

// start starts a command.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan error, 1)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second // what it started may hold its output open
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- cmd.Wait() }()
	return p, nil
}

// kill ends the process as a power cut would, and all of its group where all is set.
func (p *process) kill(all bool) {
	pid := p.cmd.Process.Pid
	if all {
		pid = -pid
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	<-p.ended
}

// says waits until the output holds text. It reports false when the process ends, or after a time,
// without it.
func (p *process) says(text string, within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		if strings.Contains(p.out.String(), text) {
			return true
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			return strings.Contains(p.out.String(), text)
		default:
		}
	}
	return false
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case err := <-p.ended:
		p.ended <- err
		return false
	default:
		return true
	}
}

// result is how a command ended.
type result struct {
	stdout, stderr string
	status         int // -1 for a signal
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d, %s%s", r.status, r.stdout, r.stderr)
}

// run runs a command to its end. An error says that it could not be started.
func run(cmd *exec.Cmd) (result, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, err
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, nil
}

// environment is the process's own, with some variables set and others removed ("NAME").
func environment(changes ...string) []string {
	var out []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		keep := true
		for _, c := range changes {
			changed, _, _ := strings.Cut(c, "=")
			keep = keep && name != changed
		}
		if keep {
			out = append(out, e)
		}
	}
	for _, c := range changes {
		if strings.Contains(c, "=") {
			out = append(out, c)
		}
	}
	return out
}
