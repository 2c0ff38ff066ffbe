//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pipe is the file that the host gives its keeper. A byte comes out of it when the server is gone,
// and its end when the host is.
const pipe = 3

// keep runs the kernel in the group that it was started in, and leaves that group itself. When the
// kernel has ended, it ends what the kernel started and left.
func keep(program []string) (status int, err error) {
	told := signals()
	group := unix.Getpgrp()
	if err := unix.Setpgid(0, 0); err != nil {
		return 0, fmt.Errorf("a process group of its own: %w", err)
	}
	// What loses its parent becomes this process's child.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("to take in processes: %w", err)
	}
	unix.CloseOnExec(pipe)
	serverGone, hostGone := make(chan struct{}, 1), make(chan struct{})
	go func() {
		host := os.NewFile(pipe, "host")
		if n, _ := host.Read(make([]byte, 1)); n > 0 {
			serverGone <- struct{}{}
			_, _ = host.Read(make([]byte, 1))
		}
		close(hostGone)
	}()
	path, err := exec.LookPath(program[0])
	if err != nil {
		return 0, err
	}
	kernel, err := syscall.ForkExec(path, program, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true, Pgid: group},
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	ended, none := make(chan syscall.WaitStatus, 1), make(chan struct{})
	go reap(kernel, ended, none)
	var late <-chan time.Time
	for {
		select {
		case s := <-ended:
			endRest(none)
			return statusOf(s), nil
		case s := <-told:
			_ = unix.Kill(kernel, s.(syscall.Signal))
		case <-serverGone:
			_ = unix.Kill(kernel, unix.SIGTERM)
			late = time.After(grace)
		case <-hostGone:
			// Jupyter kills it when the kernel did not end, and starts the next at the same ports.
			hostGone = nil
			_ = unix.Kill(kernel, unix.SIGKILL)
		case <-late:
			_ = unix.Kill(kernel, unix.SIGKILL)
		}
	}
}

// reap waits for every child, of its own or taken in, until there is none.
func reap(kernel int, ended chan<- syscall.WaitStatus, none chan<- struct{}) {
	for {
		var s syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &s, 0, nil); {
		case errors.Is(err, syscall.ECHILD):
			close(none)
			return
		case err == nil && pid == kernel:
			ended <- s
		}
	}
}

// endRest ends all children, and those that they leave, until there is none: first by SIGTERM, then
// by SIGKILL. What belongs to another user stays.
func endRest(none <-chan struct{}) {
	begin := time.Now()
	asked := map[int]bool{}
	for time.Since(begin) < rest+grace {
		for _, pid := range children() {
			switch {
			case time.Since(begin) > rest:
				_ = unix.Kill(pid, unix.SIGKILL)
			case !asked[pid]:
				asked[pid] = true
				_ = unix.Kill(pid, unix.SIGTERM)
				_ = unix.Kill(pid, unix.SIGCONT) // one that was stopped hears of it
			}
		}
		select {
		case <-none:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// children are the processes whose parent this one is.
func children() []int {
	var found []int
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT ...; a name may hold anything.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			found = append(found, pid)
		}
	}
	return found
}
