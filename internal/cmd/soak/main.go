// Command soak tries for long what the library promises: see ./scripts/soak --help.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/soak"
	"github.com/kvqbook/kvqbook/internal/soak/harm"
	"github.com/kvqbook/kvqbook/internal/soak/models"
)

// parts are all parts, in the order of docs/reliability.md.
var parts = slices.Concat(harm.Parts, models.Parts)

const usage = `usage: scripts/soak [--quick] [--time DURATION] [--restart] [PART...]
       scripts/soak --list

Tries for long what the library promises: all parts without names, an hour or so each. Stop it at any time, also with
kill -9, and call it again: a part goes on where it was. A part that is finished writes its figures into
` + soak.Document + `; the next call begins it anew. A line says every ten seconds how far it is. Exit status: 0,
1 where a promise did not hold or a part could not run, 2 for bad flags, 130 when interrupted.

  --quick           the form of seconds that ./scripts/test has; nothing is kept
  --time DURATION   stop after this time, such as 20m, to go on another day
  --restart         begin parts anew that were stopped
  --list            the parts and their promises
  --help            this text

Keeps what it did, and each input that failed, in .setup/soak.
`

func main() {
	soak.RunChild()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	quick := flags.Bool("quick", false, "")
	limit := flags.Duration("time", 0, "")
	restart := flags.Bool("restart", false, "")
	list := flags.Bool("list", false, "")
	if err := flags.Parse(args); err != nil {
		if err == flag.ErrHelp {
			fmt.Fprint(out, usage)
			return 0
		}
		fmt.Fprintf(errs, "soak: %v (--help lists the flags)\n", err)
		return 2
	}
	if *list {
		for _, p := range parts {
			fmt.Fprintf(out, "%-16s %s\n", p.Name, p.Promise)
		}
		return 0
	}
	wanted := parts
	if flags.NArg() > 0 {
		wanted = nil
		for _, name := range flags.Args() {
			p, found := soak.Find(parts, name)
			if !found {
				fmt.Fprintf(errs, "soak: no part %q; --list names them, flags come before them\n", name)
				return 2
			}
			wanted = append(wanted, p)
		}
	}
	root, err := asset.Root()
	if err != nil {
		fmt.Fprintln(errs, "soak:", err)
		return 1
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	interrupted := ctx
	if *limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, *limit)
		defer cancel()
	}
	runner := soak.Runner{Root: root, Folder: soak.Folder(root), Quick: *quick, Restart: *restart, Commit: commit(root), Machine: bench.CPU(), Out: out}
	status := 0
	for _, p := range wanted {
		if ctx.Err() != nil {
			fmt.Fprintf(out, "soak %s: not begun\n", p.Name)
			continue
		}
		outcome, err := runner.Run(ctx, p)
		for _, line := range outcome.Failures {
			fmt.Fprintf(out, "soak %s: FAILED: %s\n", p.Name, line)
		}
		if err != nil {
			fmt.Fprintf(errs, "soak %s: %v\n", p.Name, err)
		}
		if len(outcome.Failures) > 0 || err != nil {
			status = 1
		}
		switch {
		case outcome.Finished:
			fmt.Fprintf(out, "soak %s: finished, %d failures\n", p.Name, len(outcome.Failures))
		case err == nil:
			fmt.Fprintf(out, "soak %s: stopped; the next call goes on\n", p.Name)
		}
	}
	if interrupted.Err() != nil {
		return 130
	}
	return status
}

// commit is the clone's commit, with a mark where files differ from it.
func commit(root string) string {
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	name := git("rev-parse", "--short=7", "HEAD")
	switch {
	case name == "":
		return "unknown commit of " + time.Now().UTC().Format(time.DateOnly)
	case git("status", "--porcelain", "--untracked-files=no", "--", ":!"+soak.Document) != "":
		return name + " with changes"
	default:
		return name
	}
}
