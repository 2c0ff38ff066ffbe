package benchcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/gomlx/compute"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// compileFlags are those of bench compile.
type compileFlags struct {
	commonFlags
	model cli.ModelFlags
}

func newCompile() *cobra.Command {
	var f compileFlags
	c := &cobra.Command{
		Use:   "compile",
		Short: "What XLA takes to compile a generation",
		Long: `compile times how long XLA compiles the graphs of a generation: the one that reads the prompt, the decode loop, and both at the same time, as
generate does. Nothing is loaded but the model's header. --weights auto takes packed ones and plain ones, where both can be. CPU seconds are those of
both graphs, over all threads.`,
		Example: `  kvq bench compile --tokens 16 --runs 3 --weights packed`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.commonFlags.register(fs, []int{16}, []int{1}, 20)
	fs.Lookup("tokens").Usage, fs.Lookup("steps").Usage = "tokens of the prompt", "new tokens that the cache has room for"
	fs.Lookup("runs").Usage, fs.Lookup("runs").DefValue = "counted runs of each, in alternation", "3"
	f.runs = 3
	return c
}

// compileRow is one cache and form of weights; times in seconds.
type compileRow struct {
	Cache   string  `json:"cache"`
	Weights string  `json:"weights"`
	Batch   int     `json:"batch"`
	Tokens  int     `json:"tokens"`
	Prompt  seconds `json:"prompt_s"`
	Step    seconds `json:"step_s"`
	Both    seconds `json:"both_s"`
	CPU     seconds `json:"both_cpu_s"`
}

// seconds are the shortest and the median of some times.
type seconds struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
}

func newSeconds(t bench.Times) seconds { return seconds{t.Min().Seconds(), t.Median().Seconds()} }

func (s seconds) String() string { return fmt.Sprintf("%.1f / %.1f", s.Min, s.Median) }

// compileReport is what compile prints.
type compileReport struct {
	reportHead
	Runs int          `json:"runs"`
	Rows []compileRow `json:"rows"`
}

func (r *compileReport) print(w io.Writer, f *commonFlags) error {
	f.status.Close()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	t := cli.NewTable(w, table.Row{"cache", "weights", "batch", "tokens", "prompt s: min / median", "step s: min / median", "both s: min / median", "CPU s: min / median"})
	for _, row := range r.Rows {
		t.AppendRow(table.Row{row.Cache, row.Weights, row.Batch, row.Tokens, row.Prompt, row.Step, row.Both, row.CPU})
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%d runs in alternation\n\n", r.Runs)
	renderTable(t, 4, f.markdown)
	return nil
}

func (f *compileFlags) run(c *cobra.Command) error {
	cache, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	f.status = f.model.Status(c.ErrOrStderr())
	defer f.status.Close()
	f.status.Stage("opening the device")
	backend, info, err := cli.OpenDevice(f.model.Backend)
	if err != nil {
		return err
	}
	defer backend.Finalize()
	if info.Name == device.PureGo {
		return usererr.New("--backend %s compiles nothing; want %s or %s", f.model.Backend, device.XLACPU, device.XLACUDA)
	}
	forms, err := f.forms(files, info.GPU())
	if err != nil {
		return err
	}
	cache = f.fit(c, cache, files.Config())
	report := &compileReport{reportHead: newReportHead(c, info), Runs: f.runs}
	outcome := cli.OutcomeOf(c.Context())
	outcome.OnInterrupt(func() { _ = report.print(c.OutOrStdout(), &f.commonFlags) })
	for _, batch := range f.batches {
		for _, tokens := range f.tokens {
			var requests []fit.Request
			var rows []compileRow
			for _, form := range forms {
				for _, config := range []kvq.Config{cache, {}} {
					requests = append(requests, fit.Request{Model: files.Config(), DType: f.model.DTypeOn(info.GPU()), Packed: form == "packed", Cache: config,
						Batch: batch, Prompt: tokens, NewTokens: f.steps})
					rows = append(rows, compileRow{Cache: config.String(), Weights: form, Batch: batch, Tokens: tokens})
				}
			}
			if err := f.measure(c.Context(), backend, requests, rows); err != nil {
				return err
			}
			_ = outcome.Update(func() error { report.Rows = append(report.Rows, rows...); return nil })
		}
	}
	return outcome.Print(func() error { return report.print(c.OutOrStdout(), &f.commonFlags) })
}

// forms are how the weights are kept: as asked for, or in all ways that can be.
func (f *compileFlags) forms(files *llama.Files, gpu bool) ([]string, error) {
	packed, err := f.model.Packs(files, gpu, 1)
	switch {
	case err != nil:
		return nil, err
	case !packed:
		return []string{"plain"}, nil
	case f.model.Weights == "packed":
		return []string{"packed"}, nil
	}
	return []string{"packed", "plain"}, nil
}

// measure fills rows with the times of requests.
func (f *compileFlags) measure(ctx context.Context, backend compute.Backend, requests []fit.Request, rows []compileRow) error {
	var runs []bench.Run
	cpu := make([]bench.Times, len(requests))
	for i, r := range requests {
		for _, parts := range [][]fit.Part{{fit.PromptPart}, {fit.StepPart}, nil} {
			runs = append(runs, func(ctx context.Context) (time.Duration, error) {
				start, before := time.Now(), processorTime()
				_, err := r.Compile(ctx, backend, parts...)
				if parts == nil {
					cpu[i] = append(cpu[i], processorTime()-before)
				}
				return time.Since(start), err
			})
		}
	}
	times, err := watched(ctx, f.status, fmt.Sprintf("compiling for prompts of %d tokens, batch %d", requests[0].Prompt, requests[0].Batch), f.runs, runs...)
	if err != nil {
		return err
	}
	for i := range rows {
		rows[i].Prompt, rows[i].Step, rows[i].Both = newSeconds(times[3*i]), newSeconds(times[3*i+1]), newSeconds(times[3*i+2])
		rows[i].CPU = newSeconds(cpu[i][1:]) // the first run does not count
	}
	return nil
}
