package soak

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// childVariable names the child that a program is to be, in place of what it is.
const childVariable = "KVQ_SOAK_CHILD"

// children are what programs can be in place of what they are, by name.
var children = map[string]func(args []string) error{}

// RegisterChild adds a process of a part's own, which can be killed, run out of memory or lack a
// home without harm to the soak. Call it in an init function.
func RegisterChild(name string, run func(args []string) error) { children[name] = run }

// Child is a command that runs a registered child: the program that runs now, once more. The
// program's main function, or TestMain, has to call [RunChild] first.
func (s *Sitting) Child(ctx context.Context, name string, args ...string) *exec.Cmd {
	if children[name] == nil {
		panic("soak: no child is registered as " + name)
	}
	program, err := os.Executable()
	if err != nil {
		panic(err) // Linux knows it
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	return cmd
}

// RunChild does not return in a process that [Sitting.Child] started. In others it does nothing.
func RunChild() {
	name := os.Getenv(childVariable)
	if name == "" {
		return
	}
	os.Unsetenv(childVariable)
	run := children[name]
	if run == nil {
		fmt.Fprintf(os.Stderr, "soak: no child %q\n", name)
		os.Exit(2)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
