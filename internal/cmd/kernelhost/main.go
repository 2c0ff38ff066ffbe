//go:build unix

// Command kernelhost runs a Jupyter kernel, and ends it when the server that started it is gone.
//
//	kernelhost PROGRAM [ARGUMENT...]
//
// A server that is killed, as JupyterHub does with one that takes too long to end, cannot end its
// kernels any more, and GoNB does not look for itself. Signals go on to the kernel, and its exit
// status is this program's.
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

// Variables for tests.
var (
	look  = time.Second     // between looks at the parent
	grace = 5 * time.Second // that a kernel has to remove its temporary files
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "kernelhost: wanted a program")
		os.Exit(2)
	}
	status, err := host(os.Getppid(), os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernelhost:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

// host runs a program until it ends, or the process parent does.
func host(parent int, program string, args ...string) (int, error) {
	c := exec.Command(program, args...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := c.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	tick := time.NewTicker(look)
	defer tick.Stop()
	var late <-chan time.Time
	for {
		select {
		case err := <-ended:
			if late != nil {
				endGroup()
			}
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			if s, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
				return 128 + int(s.Signal()), nil
			}
			return c.ProcessState.ExitCode(), nil
		case s := <-signals:
			_ = c.Process.Signal(s)
		case <-tick.C:
			if late == nil && os.Getppid() != parent {
				_ = c.Process.Signal(syscall.SIGTERM)
				late = time.After(grace)
			}
		case <-late:
			endGroup()
			_ = c.Process.Kill()
		}
	}
}

// endGroup ends the programs of cells that are still there, and this program: Jupyter starts a
// kernel as the first of a group, in which they are too.
func endGroup() {
	if syscall.Getpgrp() == os.Getpid() {
		_ = syscall.Kill(-os.Getpid(), syscall.SIGKILL)
	}
}
