package benchcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// startFlags are those of bench start.
type startFlags struct {
	model          cli.ModelFlags
	cache          cli.CacheFlags
	runs, steps    int
	markdown, json bool
	prompt         string
}

func newStart() *cobra.Command {
	var f startFlags
	c := &cobra.Command{
		Use:   "start",
		Short: "What a whole command takes, from its start to its end",
		Long: `start runs kvq generate as a process of its own, with the cache of the flags and with a full-precision one: first with an empty folder for what
XLA compiled, then again with what the first run has kept there. It prints the time of the whole command, and what that was made of. On a GPU nothing
is kept, and both are the same.`,
		Example: `  kvq bench start --runs 5`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.cache.Register(fs)
	fs.IntVar(&f.runs, "runs", 3, "counted runs of each, in alternation; cold ones too")
	fs.IntVar(&f.steps, "steps", 20, "new tokens")
	fs.StringVar(&f.prompt, "prompt", "Once upon a time", "the text to continue")
	fs.BoolVar(&f.markdown, "markdown", false, "print a Markdown table")
	cli.UnderMore(fs, "markdown")
	cli.RegisterJSON(fs, &f.json)
	return c
}

// startRow is one cache, cold or warm; times in seconds.
type startRow struct {
	Cache     string  `json:"cache"`
	Compiled  string  `json:"compiled"` // "cold" or "kept"
	Whole     seconds `json:"whole_s"`
	Processor seconds `json:"cpu_s"` // of all processors
	Load      seconds `json:"load_s"`
	Compile   seconds `json:"compile_s"` // what was waited for
	Prefill   seconds `json:"prefill_s"`
	Decode    seconds `json:"decode_s"`
	Peak      int64   `json:"host_peak_bytes"` // the largest of all runs

	whole, processor, load, compile, prefill, decode bench.Times
}

// startReport is what start prints.
type startReport struct {
	reportHead
	Runs  int         `json:"runs"`
	Steps int         `json:"new_tokens"`
	Rows  []*startRow `json:"rows"`
}

func (r *startReport) print(w io.Writer, f *startFlags) error {
	for _, row := range r.Rows {
		row.sumUp()
	}
	if f.json {
		return cli.PrintJSON(w, r)
	}
	t := cli.NewTable(w, table.Row{"cache", "compiled", "whole s: min / median", "processors s: min / median", "load s", "compile s", "prompt s", "tokens s", "peak"})
	for _, row := range r.Rows {
		t.AppendRow(table.Row{row.Cache, row.Compiled, row.Whole.fine(), row.Processor.fine(), row.Load.fine(), row.Compile.fine(), row.Prefill.fine(), row.Decode.fine(), cli.ByteCount(row.Peak)})
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%d runs in alternation, %d new tokens\n\n", r.Runs, r.Steps)
	renderTable(t, 2, f.markdown)
	return nil
}

// fine is String in hundredths.
func (s seconds) fine() string { return fmt.Sprintf("%.2f / %.2f", s.Min, s.Median) }

func (f *startFlags) run(c *cobra.Command) error {
	if f.runs < 1 || f.steps < 1 {
		return usererr.New("--runs %d --steps %d, want at least 1", f.runs, f.steps)
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	cache, err := f.cache.Config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	status := f.model.Status(c.ErrOrStderr())
	defer status.Close()
	info := device.Inspect(f.model.Backend)
	if info.Err != nil {
		return info.Err
	}
	folder, err := os.MkdirTemp("", "kvq-bench-start-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	args := append(given(c.Flags(), new(cli.ModelFlags).Register), "--prompt="+f.prompt, fmt.Sprintf("--max-new-tokens=%d", f.steps), fmt.Sprintf("--min-new-tokens=%d", f.steps))
	report := &startReport{reportHead: newReportHead(c, info), Runs: f.runs, Steps: f.steps}
	sides := []startSide{{append(cacheArgs(c.Flags()), args...), &startRow{Cache: cache.String()}, &startRow{Cache: cache.String()}},
		{append([]string{"--cache=full"}, args...), &startRow{Cache: "full precision"}, &startRow{Cache: "full precision"}}}
	for _, s := range sides {
		s.cold.Compiled, s.kept.Compiled = "cold", "kept"
		report.Rows = append(report.Rows, s.cold, s.kept)
	}
	outcome := cli.OutcomeOf(c.Context())
	finish := func() error { status.Close(); return report.print(c.OutOrStdout(), f) }
	outcome.OnInterrupt(func() { _ = finish() })
	for run := range f.runs {
		for i, s := range sides {
			dir := fmt.Sprintf("%s/%d-%d", folder, run, i)
			for _, row := range []*startRow{s.cold, s.kept} {
				status.Stage("run %d of %d: %s, %s", run+1, f.runs, row.Cache, row.Compiled)
				one, err := startOnce(c.Context(), dir, s.args)
				if err != nil {
					return err
				}
				_ = outcome.Update(func() error { row.add(one); return nil })
			}
		}
	}
	return outcome.Print(finish)
}

// startSide is a cache: its flags and rows.
type startSide struct {
	args       []string
	cold, kept *startRow
}

// started is one run of kvq generate: what it says itself, and what the system says.
type started struct {
	Timing struct {
		Load    float64 `json:"load_s"`
		Compile float64 `json:"compile_s"`
		Prefill float64 `json:"prefill_s"`
		Decode  float64 `json:"decode_s"`
	} `json:"timing"`
	Memory cli.PeakJSON `json:"memory"`

	whole, processor time.Duration
}

// startOnce runs kvq generate with a folder for what is compiled.
func startOnce(ctx context.Context, folder string, args []string) (s started, err error) {
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	command := exec.CommandContext(ctx, self, append([]string{"generate", "--json", "--quiet"}, args...)...)
	command.Env = append(os.Environ(), asset.EnvCompiled+"="+folder)
	start := time.Now()
	out, err := command.Output()
	s.whole = time.Since(start)
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return s, fmt.Errorf("kvq generate: %w: %s", err, strings.TrimSpace(string(failed.Stderr)))
	}
	if err != nil {
		return s, fmt.Errorf("kvq generate: %w", err)
	}
	s.processor = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	if err := json.Unmarshal(out, &s); err != nil {
		return s, fmt.Errorf("kvq generate --json: %w", err)
	}
	return s, nil
}

func (r *startRow) add(s started) {
	of := func(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }
	r.whole, r.processor = append(r.whole, s.whole), append(r.processor, s.processor)
	r.load, r.compile = append(r.load, of(s.Timing.Load)), append(r.compile, of(s.Timing.Compile))
	r.prefill, r.decode = append(r.prefill, of(s.Timing.Prefill)), append(r.decode, of(s.Timing.Decode))
	r.Peak = max(r.Peak, s.Memory.HostPeak)
}

// sumUp fills in the figures of the runs so far.
func (r *startRow) sumUp() {
	if len(r.whole) == 0 {
		return
	}
	r.Whole, r.Processor, r.Load = newSeconds(r.whole), newSeconds(r.processor), newSeconds(r.load)
	r.Compile, r.Prefill, r.Decode = newSeconds(r.compile), newSeconds(r.prefill), newSeconds(r.decode)
}
