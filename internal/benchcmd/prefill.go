package benchcmd

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

func newPrefill() *cobra.Command {
	var f commonFlags
	var sides sideFlags
	c := &cobra.Command{
		Use:   "prefill",
		Short: "A prompt, up to its first new token: time and peak memory",
		Long: `prefill times how a prompt is read, with the quantized and with the full-precision cache, each in a process of its own, in alternation. "Peak
over before" is what the process held at most in the counted runs, beyond what it held with the model loaded: cache, work, the compiled program and what
the allocator kept of compiling it. kvq memory --measure has XLA's own figure of the work.`,
		Example: `  kvq bench prefill --tokens 512,2048 --batches 1 --runs 3`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.prefill(c, &sides) },
	}
	sides.register(c.Flags())
	f.register(c.Flags(), []int{512, 2048}, []int{1}, 1)
	return c
}

// sideRow is one side's part of a comparison of processes.
type sideRow struct {
	Side   string      `json:"side"`
	Batch  int         `json:"batch"`
	Tokens int         `json:"tokens"`
	Min    float64     `json:"min_s"`
	Median float64     `json:"median_s"`
	Ratio  bench.Ratio `json:"times_slower"` // than the full-precision one
	Cache  int64       `json:"cache_bytes"`
	Over   int64       `json:"peak_over_before_bytes"`
	Peak   int64       `json:"peak_bytes"`
	Device int64       `json:"device_bytes,omitempty"`

	before int64
}

// prefillReport is what prefill prints.
type prefillReport struct {
	reportHead
	Cache string    `json:"cache"`
	Runs  int       `json:"runs"`
	Rows  []sideRow `json:"rows"`
}

func (r *prefillReport) print(w io.Writer, f *commonFlags) error {
	f.status.Close()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	header := table.Row{"cache", "batch", "tokens", "s: min", "s: median", "time of full precision: min / median", "cache MiB", "peak over before MiB", "peak of the process MiB"}
	t := cli.NewTable(w, append(header, "device MiB"))
	for _, row := range r.Rows {
		t.AppendRow(table.Row{row.Side, row.Batch, row.Tokens, fmt.Sprintf("%.3f", row.Min), fmt.Sprintf("%.3f", row.Median), row.Ratio.String(),
			mib(row.Cache), mib(row.Over), mib(row.Peak), mib(row.Device)})
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%s, %d runs in alternation\n\n", r.Cache, r.Runs)
	renderTable(t, 3, f.markdown)
	return nil
}

func (f *commonFlags) prefill(c *cobra.Command, flags *sideFlags) error {
	cache, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	f.status = flags.model.Status(c.ErrOrStderr())
	defer f.status.Close()
	config, _, err := flags.config(c)
	if err != nil {
		return err
	}
	for _, tokens := range f.tokens {
		if tokens > config.MaxPositions {
			return usererr.New("--tokens %d, the model reads at most %d", tokens, config.MaxPositions)
		}
	}
	sides, closeAll, err := flags.start(c)
	if err != nil {
		return err
	}
	defer closeAll()
	report := &prefillReport{reportHead: newSideHead(c, sides[0]), Cache: cache.String(), Runs: f.runs}
	outcome := cli.OutcomeOf(c.Context())
	outcome.OnInterrupt(func() { _ = report.print(c.OutOrStdout(), f) })
	for _, batch := range f.batches {
		for _, tokens := range f.tokens {
			rows, err := f.prefillRows(c, sides, bench.Request{Op: "prefill", IDs: madeUpPrompt(config, batch, tokens), Limit: 1})
			if err != nil {
				return err
			}
			_ = outcome.Update(func() error { report.Rows = append(report.Rows, rows...); return nil })
		}
	}
	return outcome.Print(func() error { return report.print(c.OutOrStdout(), f) })
}

func (f *commonFlags) prefillRows(c *cobra.Command, sides []*bench.Side, prompt bench.Request) ([]sideRow, error) {
	rows, reads := make([]sideRow, len(sides)), make([]int, len(sides))
	what := fmt.Sprintf("the reading of %d tokens, batch %d (the first run of each compiles)", len(prompt.IDs[0]), len(prompt.IDs))
	times, err := alternate(c.Context(), f.status, what, f.runs, sides, func() bench.Request { return prompt }, func(side int, r bench.Reply) {
		row := &rows[side]
		if reads[side]++; reads[side] == 1 { // not counted: it compiles
			row.before = r.Before
			return
		}
		row.Peak = max(row.Peak, r.Peak)
		row.Over = row.Peak - row.before
	})
	if err != nil {
		return nil, err
	}
	ends, err := all(c.Context(), sides, bench.Request{Op: "end"})
	if err != nil {
		return nil, err
	}
	full := times[len(times)-1]
	for i, s := range sides {
		row := &rows[i]
		row.Side, row.Batch, row.Tokens = s.Name, len(prompt.IDs), len(prompt.IDs[0])
		row.Min, row.Median = times[i].Min().Seconds(), times[i].Median().Seconds()
		row.Ratio = full.Faster(times[i])
		row.Cache, row.Device = ends[i].CacheBytes, s.Device
	}
	return rows, nil
}
