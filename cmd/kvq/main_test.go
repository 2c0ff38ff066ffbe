package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/cli"
)

func TestVersionAndHelp(t *testing.T) {
	if out := mustRun(t, "", "--version"); !strings.HasPrefix(out, "kvq ") || !strings.Contains(out, "go1.") {
		t.Errorf("version %q", out)
	}
	if one, other := mustRun(t, "", "version"), mustRun(t, "", "--version"); one != other {
		t.Errorf("version prints %q, --version %q", one, other)
	}
	if b := parse[cli.Build](t, mustRun(t, "", "version", "--json")); b.Go == "" || b.Version == "" || len(b.Libraries) != len(cli.Libraries) {
		t.Errorf("version --json: %+v", b)
	}
	help := mustRun(t, "", "--help")
	for _, c := range []string{"devices", "generate", "compare", "evaluate", "memory"} {
		if !strings.Contains(help, c) {
			t.Errorf("help does not name %s:\n%s", c, help)
		}
		if text := mustRun(t, "", c, "--help"); !strings.Contains(text, "Examples:") || !strings.Contains(text, "--json") {
			t.Errorf("help of %s:\n%s", c, text)
		}
	}
	if out := mustRun(t, ""); !strings.Contains(out, "Usage:") {
		t.Errorf("kvq alone printed %q, want its help", out)
	}
}

// Every example in a help text is a command line that exists, with flags that exist.
func TestExamplesParse(t *testing.T) {
	root, _ := newRoot()
	count := 0
	for _, c := range append([]*cobra.Command{root}, root.Commands()...) {
		for _, line := range strings.Split(c.Example, "\n") {
			if _, after, piped := strings.Cut(line, "| "); piped {
				line = after
			}
			args := words(strings.TrimSpace(line))
			if len(args) == 0 {
				continue
			}
			if args[0] != "kvq" {
				t.Errorf("example %q does not call kvq", line)
				continue
			}
			sub, rest, err := root.Find(args[1:])
			if err == nil {
				err = sub.ParseFlags(rest)
			}
			if err != nil || sub == root {
				t.Errorf("example %q: %v", line, err)
			}
			count++
		}
	}
	if count < 10 {
		t.Errorf("only %d examples found", count)
	}
}

// words splits a line as a shell does, as far as examples need it: blanks and double quotes.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

func TestDevices(t *testing.T) {
	needsXLA(t)
	type report struct {
		Devices  []deviceJSON `json:"devices"`
		Warnings []string     `json:"warnings"`
	}
	j := parse[report](t, mustRun(t, "", "devices", "--json"))
	found := map[string]deviceJSON{}
	for _, d := range j.Devices {
		found[d.Name] = d
	}
	if d := found[device.XLACPU]; d.Platform != "cpu" || len(d.Devices) == 0 || d.Error != "" {
		t.Errorf("XLA's CPU is %+v", d)
	}
	cuda := found[device.XLACUDA]
	if gpu := cuda.Error == "" && cuda.Platform == "cuda"; gpu == (len(j.Warnings) > 0) {
		t.Errorf("warnings %q with %+v, want one exactly where there is no GPU", j.Warnings, cuda)
	}
	status, out, errs := runKVQ(t, "", "devices", "--backend", device.XLACPU)
	if status != exitOK || !strings.HasPrefix(out, "xla:cpu: platform cpu") || errs != "warning: "+device.NoGPUWarning+"\n" {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if several := len(found[device.XLACPU].Devices) > 1; several != strings.Contains(out, "several are there to try --devices with\n") {
		t.Errorf("several devices of a CPU: %v, want that explained:\n%s", several, out)
	}
}

// A failure that is nobody's input is one line and status 1; a bug is status 1 too, and says so.
func TestFailures(t *testing.T) {
	before := commands
	defer func() { commands = before }()
	register(func() *cobra.Command {
		return &cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error { return errors.New("the disk\n  is full") }}
	})
	register(func() *cobra.Command {
		return &cobra.Command{Use: "panic", RunE: func(*cobra.Command, []string) error { panic("oh") }}
	})
	if status, out, errs := runKVQ(t, "", "fail"); status != exitFailure || out != "" || errs != "kvq: the disk is full\n" {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if status, _, errs := runKVQ(t, "", "panic"); status != exitFailure || !strings.HasPrefix(errs, "kvq: bug, please report it: oh\n") {
		t.Errorf("status %d, %q", status, errs)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	if status := execute(ctx, []string{"fail"}, nil, &out, &errs); status != exitInterrupted || errs.String() != "kvq: interrupted\n" {
		t.Errorf("interrupted: status %d, %q", status, errs.String())
	}
}
