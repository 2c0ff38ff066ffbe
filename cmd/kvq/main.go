// Command kvq shows what a quantized key/value cache does to a model's text, quality and memory.
//
// Each subcommand is a file of its own that registers itself: flags in, calls of the libraries out.
// This file holds what they share: exit statuses, errors in one line, Ctrl-C.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Exit statuses.
const (
	exitOK          = 0
	exitFailure     = 1   // of the program or the machine
	exitBadInput    = 2   // flags, files or texts that cannot be used
	exitInterrupted = 130 // Ctrl-C, as shells count it: 128 + SIGINT
)

// grace is how long a command may take to end after Ctrl-C. A call on the device cannot be cut
// short, so after this the results so far are printed without waiting for it.
const grace = 500 * time.Millisecond

// commands are the makers of the subcommands. A file adds its own with register, in an init
// function.
var commands []func() *cobra.Command

func register(newCommand func() *cobra.Command) { commands = append(commands, newCommand) }

func main() { os.Exit(interruptible(cli.EndsProcess(context.Background()), os.Args[1:])) }

// interruptible runs the command until it ends or the user has had enough of it.
func interruptible(ctx context.Context, args []string) int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcome := &cli.Outcome{}
	done := make(chan int, 1)
	go func() { done <- execute(cli.WithOutcome(ctx, outcome), args, os.Stdin, os.Stdout, os.Stderr) }()
	for ctx.Err() == nil {
		select {
		case status := <-done:
			return status
		case s := <-signals:
			if !outcome.Signal(s) {
				cancel()
			}
		}
	}
	select {
	case status := <-done:
		return status
	case <-signals:
	case <-time.After(grace):
	}
	outcome.Interrupt()
	fmt.Fprintln(os.Stderr, "kvq: interrupted")
	return exitInterrupted
}

// execute runs one command line and returns its exit status. Errors go to errs, one line each.
func execute(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) (status int) {
	defer func() {
		// Go ends a panic with status 2, which stands for bad input here.
		if r := recover(); r != nil {
			fmt.Fprintf(errs, "kvq: bug, please report it: %v\n%s", r, debug.Stack())
			status = exitFailure
		}
	}()
	root, ran := newRoot()
	root.SetArgs(append([]string{}, args...)) // never nil, which would mean os.Args
	root.SetIn(in)
	written := cli.NewWritten(out)
	root.SetOut(written)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if lost := written.Err(); err == nil && lost != nil {
		err = fmt.Errorf("standard output: %w", lost)
		*ran = true
	}
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(errs, "kvq: interrupted")
		return exitInterrupted
	}
	if !*ran { // cobra's own errors: the command line does not parse
		fmt.Fprintf(errs, "kvq: %s\n", parseError(root, err))
		return exitBadInput
	}
	fmt.Fprintf(errs, "kvq: %s\n", oneLine(err))
	if usererr.Is(err) {
		return exitBadInput
	}
	return exitFailure
}

// newRoot makes the command line. ran becomes true once a subcommand has begun to work; an error
// before that is a command line that makes no sense.
func newRoot() (root *cobra.Command, ran *bool) {
	ran = new(bool)
	root = &cobra.Command{
		Use:   "kvq",
		Short: "Run a language model with a quantized key/value cache",
		Long: `kvq runs a language model with a quantized key/value cache and shows what that does to its text, its quality and its
memory. Without --model it uses the small model that ./scripts/setup fetched.

Exit status: 0, 1 for a failure, 2 for bad input, 130 when interrupted.`,
		Example: `  kvq devices
  kvq compare
  kvq generate --prompt "Hello, how are you?" --preset balanced`,
		Version:            cli.Version(),
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	cli.GroupHelp(root)
	for _, newCommand := range commands {
		c := newCommand()
		mark(c, ran)
		cli.CompleteValues(c)
		root.AddCommand(c)
	}
	// cobra's command prints its help, and success, for a shell that it does not know.
	root.InitDefaultCompletionCmd("completion")
	if c, _, err := root.Find([]string{"completion"}); err == nil {
		c.Args = cobra.NoArgs
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	return root, ran
}

// mark lets c and its subcommands tell that they began.
func mark(c *cobra.Command, ran *bool) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			*ran = true
			if err := cli.NamedFiles(c.Flags()); err != nil {
				return err
			}
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		mark(sub, ran)
	}
}

// goCalls are functions of the libraries at the head of their errors: a command's user called none.
var goCalls = regexp.MustCompile(`\b(kvq|llama)\.((Batch|Generator|Session)\.)?(Load|NewBatch|ReadNotes|ReadSaved|Save|SaveWithNotes): `)

// oneLine is the message of err without line breaks and names of functions, whatever it wraps.
func oneLine(err error) string {
	lines := strings.FieldsFunc(goCalls.ReplaceAllString(err.Error(), ""), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}
