//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const hosts = "KVQ_TEST_KERNELHOST"

func TestMain(m *testing.M) {
	if os.Getenv(hosts) != "" {
		look, grace, rest = 50*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), hosts+"=1")
	return c
}

// What the kernel prints, is told and returns goes through.
func TestPassesThrough(t *testing.T) {
	c := command(t, "sh", "-c", `read x; echo "$x $0"; exit 7`, "argument")
	c.Stdin = strings.NewReader("input\n")
	out, err := c.Output()
	if string(out) != "input argument\n" || c.ProcessState.ExitCode() != 7 {
		t.Errorf("%q, %v", out, err)
	}
	c = command(t, "sh", "-c", `trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done`)
	var said bytes.Buffer
	c.Stdout = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	_ = c.Process.Signal(syscall.SIGTERM)
	_ = c.Wait()
	if said.String() != "ready\ntold\n" || c.ProcessState.ExitCode() != 3 {
		t.Errorf("%q, exit status %d", said.String(), c.ProcessState.ExitCode())
	}
	if _ = command(t, "kvq-no-such-program").Run(); command(t).Run() == nil {
		t.Error("no program is no error")
	}
}

// A kernel ends within seconds of its server's death, also one that does not listen to SIGTERM and
// has started programs of its own.
func TestEndsWithItsParent(t *testing.T) {
	for _, kernel := range []string{
		`sleep 60 & echo $! >cell; exec sleep 60`,
		`trap "" TERM; sh -c 'echo $$ >cell; exec sleep 60'`,
		`setsid sh -c 'echo $$ >cell; exec sleep 60' & exec sleep 60`,
	} {
		dir := t.TempDir()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// A server: it starts the kernel as the first of a group, as Jupyter does, and lives on.
		server := exec.Command("sh", "-c", fmt.Sprintf(`setsid %q sh -c 'echo $$ >kernel; %s' & sleep 60`, self, strings.ReplaceAll(kernel, "'", `'\''`)))
		server.Dir, server.Env = dir, append(os.Environ(), hosts+"=1")
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		pids := []int{waitForPid(t, filepath.Join(dir, "kernel")), waitForPid(t, filepath.Join(dir, "cell"))}
		time.Sleep(300 * time.Millisecond)
		for _, pid := range pids {
			if !alive(pid) {
				t.Errorf("%s: process %d ended while its server lived", kernel, pid)
			}
		}
		_ = server.Process.Kill() // by SIGKILL: it cannot end anything
		_ = server.Wait()
		end := time.Now().Add(5 * time.Second)
		for time.Now().Before(end) && (alive(pids[0]) || alive(pids[1])) {
			time.Sleep(50 * time.Millisecond)
		}
		if alive(pids[0]) {
			t.Errorf("%s: the kernel outlived its server", kernel)
		}
		if alive(pids[1]) {
			t.Errorf("%s: a cell's program outlived the server", kernel)
		}
		_ = syscall.Kill(pids[1], syscall.SIGKILL)
	}
}

// Whatever ends a kernel, what it has started ends too, in whatever session and group that is, also
// where it does not listen to SIGTERM or has lost its parent. Meanwhile it is left alone.
func TestNothingOutlivesAKernel(t *testing.T) {
	// As GoNB starts gopls; what a program of the kernel left; one that ends when it is told.
	const kernel = `echo $$ >kernel
setsid sh -c 'trap "" TERM; echo $$ >gopls; while :; do sleep 0.1; done' &
sh -c 'setsid sh -c "echo \$\$ >left; exec sleep 60" &'
setsid sh -c 'trap "echo told >told; exit" TERM; echo $$ >polite; while :; do sleep 0.02; done' &
while [ ! -e end ]; do sleep 0.02; done; exit 7`
	for name, end := range map[string]func(c *exec.Cmd, kernel int){
		"it ends by itself":       func(c *exec.Cmd, _ int) { os.WriteFile(filepath.Join(c.Dir, "end"), nil, 0o600) },
		"it is killed":            func(_ *exec.Cmd, kernel int) { syscall.Kill(kernel, syscall.SIGKILL) },
		"its group is killed":     func(c *exec.Cmd, _ int) { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) },
		"its host is killed":      func(c *exec.Cmd, _ int) { c.Process.Kill() },
		"its host is told to end": func(c *exec.Cmd, _ int) { c.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command(t, "sh", "-c", kernel)
			c.Dir, c.SysProcAttr = t.TempDir(), &syscall.SysProcAttr{Setsid: true}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			pids := map[string]int{}
			for _, name := range []string{"kernel", "gopls", "left", "polite"} {
				pids[name] = waitForPid(t, filepath.Join(c.Dir, name))
			}
			if group, err := syscall.Getpgid(pids["kernel"]); err != nil || group != c.Process.Pid {
				t.Errorf("the kernel is in group %d, want the host's, %d (%v)", group, c.Process.Pid, err)
			}
			time.Sleep(300 * time.Millisecond)
			for name, pid := range pids {
				if !alive(pid) {
					t.Errorf("%s ended while the kernel lived", name)
				}
			}
			end(c, pids["kernel"])
			_ = c.Wait()
			if want := map[string]int{"it ends by itself": 7, "it is killed": 128 + 9, "its host is told to end": 128 + 15}[name]; want != 0 && c.ProcessState.ExitCode() != want {
				t.Errorf("exit status %d, want %d", c.ProcessState.ExitCode(), want)
			}
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && len(pids) > 0; time.Sleep(20 * time.Millisecond) {
				for name, pid := range pids {
					if !alive(pid) {
						delete(pids, name)
					}
				}
			}
			for name, pid := range pids {
				t.Errorf("%s outlived the kernel", name)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if _, err := os.Stat(filepath.Join(c.Dir, "told")); err != nil {
				t.Errorf("nobody told a program to end before it was killed: %v", err)
			}
		})
	}
}

func waitForPid(t *testing.T, path string) int {
	t.Helper()
	for range 100 {
		if text, err := os.ReadFile(path); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				return pid
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s was not written", path)
	return 0
}

// alive tells whether a process runs; one that nobody waits for any more does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}
