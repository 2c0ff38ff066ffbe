//go:build unix

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
		look, grace = 50*time.Millisecond, 300*time.Millisecond
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
	for _, kernel := range []string{`sleep 60 & echo $! >cell; exec sleep 60`, `trap "" TERM; sh -c 'echo $$ >cell; exec sleep 60'`} {
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
