package ask

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Start starts `kvq serve` with these flags in the background, says what it does until it answers,
// and returns. Where it runs already with the same flags, there is nothing to do; with others, it
// is ended first.
//
// The process listens at a Unix socket in the kernel's own folder. It ends with the kernel, whose
// folder is removed then, and after ten minutes without a request.
func Start(flags ...string) {
	if os.Getenv("GONB_TMP_DIR") == "" {
		check(errors.New("ask.Start: GONB_TMP_DIR is not set: it is for the cells of a notebook"))
	}
	command, err := exec.LookPath("kvq")
	if err != nil {
		check(errors.New("ask.Start: no command kvq is there: run ./scripts/setup, and restart the kernel"))
	}
	check(start(command, flags, 5*time.Minute, func(line string) { fmt.Println(line) }))
}

func socketPath() string { return filepath.Join(os.Getenv("GONB_TMP_DIR"), "kvq.sock") }
func logPath() string    { return filepath.Join(os.Getenv("GONB_TMP_DIR"), "kvq-serve.log") }

// idle is how long the process waits for a request before it ends.
const idle = "10m"

func start(command string, flags []string, patience time.Duration, say func(string)) error {
	socket, log := socketPath(), logPath()
	wanted := strings.Join(flags, "\n")
	if answers(socket) {
		if text(keptPath("flags")) == wanted {
			if serves(log) {
				say("kvq serve is there already")
				return nil
			}
			return watch(log, patience, say, func() bool { return !answers(socket) }) // of an interrupted cell
		}
		if err := end(socket); err != nil {
			return err
		}
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	args := append([]string{"serve"}, flags...)
	say("kvq " + strings.Join(args, " "))
	c := exec.Command(command, append(args, "--socket", socket, "--idle", idle)...)
	c.Stdout, c.Stderr = out, out // not the cell's, which would not end
	// An interrupt is for the cell, and goes to all of the kernel's group.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	err = os.WriteFile(keptPath("pid"), fmt.Append(nil, c.Process.Pid), 0o600)
	if err == nil {
		err = os.WriteFile(keptPath("flags"), []byte(wanted), 0o600)
	}
	if err == nil {
		err = watch(log, patience, say, func() bool { return len(ended) > 0 })
	}
	if err != nil {
		_ = c.Process.Kill() // may have ended
	}
	return err
}

// keptPath is where something of the process is kept for a later start.
func keptPath(what string) string { return filepath.Join(os.Getenv("GONB_TMP_DIR"), "kvq-serve."+what) }

// serves tells whether a process has said in its log that it is ready.
func serves(log string) bool { return strings.Contains("\n"+text(log), "\nkvq: serving ") }

// watch says what a process writes into its log until it serves.
func watch(log string, patience time.Duration, say func(string), ended func() bool) error {
	begun, said, shown := time.Now(), time.Now(), 0
	for ; ; time.Sleep(50 * time.Millisecond) {
		over := ended() // what it wrote before is read below
		for i, line := range stages(log) {
			if i >= shown {
				say(line)
				shown, said = shown+1, time.Now()
			}
		}
		switch {
		case serves(log):
			say(fmt.Sprintf("it answers after %.1f s", time.Since(begun).Seconds()))
			return nil
		case over:
			return fmt.Errorf("kvq serve has ended: %s", lastLine(log))
		case time.Since(begun) > patience:
			return fmt.Errorf("kvq serve did not answer within %s; it said last: %s", patience, lastLine(log))
		case time.Since(said) > 1500*time.Millisecond:
			say(fmt.Sprintf("… %.0f s", time.Since(begun).Seconds()))
			said = time.Now()
		}
	}
}

// answers tells whether somebody listens.
func answers(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// end ends the process of an earlier start, which answers, and waits until it does no more.
func end(socket string) error {
	var pid int
	if _, err := fmt.Sscan(text(keptPath("pid")), &pid); err != nil {
		return errors.New("another process answers in this kernel's folder: restart the kernel")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	for begun := time.Now(); answers(socket); time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			return fmt.Errorf("the kvq serve of before (process %d) does not end: restart the kernel", pid)
		}
	}
	return nil
}

func text(path string) string {
	data, _ := os.ReadFile(path) // no file is no text
	return string(data)
}

// stages are the lines of a log that say what was waited for, as far as they are complete.
func stages(log string) (list []string) {
	whole := text(log)
	whole = whole[:strings.LastIndexByte(whole, '\n')+1]
	for line := range strings.Lines(whole) {
		line, _ = strings.CutPrefix(strings.TrimSpace(line), "kvq: ")
		if line != "" && !strings.HasPrefix(line, "serving ") && !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

// lastLine is the newest line of a log.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(text(log)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "kvq: ")
}
