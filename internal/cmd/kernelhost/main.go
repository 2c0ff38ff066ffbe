//go:build linux

// Command kernelhost runs a Jupyter kernel, and ends it when the server that started it is gone.
//
//	kernelhost PROGRAM [ARGUMENT...]
//
// A server that is killed, as JupyterHub does with one that takes too long to end, cannot end its
// kernels any more, and GoNB does not look for itself. A kernel that is killed cannot end what it
// started: GoNB gives gopls a process group of its own, and cells may start programs that stay.
//
// So there are two processes. The host is what Jupyter sees: its process group is the kernel's, and
// signals and the exit status go through it. The keeper is its child, in a group that nobody
// signals, and the kernel's parent. It takes in the processes that the kernel leaves, and ends them
// with it, also where the host was killed.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// keepFlag makes this program the keeper. It is no name of a kernel's program.
const keepFlag = "--keep"

// Variables for tests.
var (
	look  = time.Second     // between the host's looks at its parent
	grace = 5 * time.Second // that a kernel has to remove its temporary files
	rest  = time.Second     // that what the kernel left has to end by itself
)

func main() {
	run, args := host, os.Args[1:]
	if len(args) > 0 && args[0] == keepFlag {
		run, args = keep, args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "kernelhost: wanted a program")
		os.Exit(2)
	}
	status, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernelhost:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

// signals are those that go on to the kernel.
func signals() <-chan os.Signal {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return c
}

// host starts a keeper for a program, and stays until it ends. It holds the end of a pipe, which
// tells the keeper that it lives; it writes a byte when its parent does no longer.
func host(program []string) (status int, err error) {
	parent := os.Getppid()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	read, alive, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer alive.Close()
	told := signals()
	c := exec.Command(self, append([]string{keepFlag}, program...)...)
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{read}
	if err := c.Start(); err != nil {
		return 0, err
	}
	_ = read.Close()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			s := c.ProcessState.Sys().(syscall.WaitStatus)
			if s.Signaled() && syscall.Getpgrp() == os.Getpid() {
				_ = syscall.Kill(-os.Getpid(), syscall.SIGKILL) // the kernel has no keeper any more
			}
			return statusOf(s), nil
		case s := <-told:
			_ = c.Process.Signal(s)
		case <-tick.C:
			if os.Getppid() != parent {
				tick.Stop()
				_, _ = alive.Write([]byte{0})
			}
		}
	}
}

// statusOf is the exit status of a process, as a shell says it.
func statusOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
