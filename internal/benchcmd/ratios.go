package benchcmd

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
)

// ratioRow is one comparison: the quantized cache against the full-precision one.
type ratioRow struct {
	What      string      `json:"what"`
	Batch     int         `json:"batch"`
	Tokens    int         `json:"tokens"`
	Quantized float64     `json:"quantized_ms"` // the shortest time of a step
	Full      float64     `json:"full_ms"`
	Ratio     bench.Ratio `json:"times_faster"`
	Bytes     int64       `json:"bytes"`
	FullBytes int64       `json:"full_bytes"`
	Devices   int         `json:"devices,omitempty"` // that the model is sharded over; decode alone
	// Scaling compares with the row of the first number of devices; nil for that row.
	Scaling *scaling `json:"times_faster_than_first_devices,omitempty"`
	// Compile is what the quantized and the full-precision decode graph took to compile, in
	// seconds.
	Compile     float64 `json:"compile_s,omitempty"`
	FullCompile float64 `json:"full_compile_s,omitempty"`
	// Slowest and Usual are the slowest step with the quantized cache and the one in the middle, in
	// milliseconds, where steps were timed one by one; of each step the shortest of all runs.
	Slowest float64 `json:"slowest_step_ms,omitempty"`
	Usual   float64 `json:"usual_step_ms,omitempty"`
	// Bandwidth is the bytes of the quantized cache that a step reads over the shortest time, as a
	// fraction of the device's bandwidth; attention alone.
	Bandwidth float64 `json:"bandwidth_fraction,omitempty"`
	// Layers, and the quantized cache with graph operations alone; attention alone.
	Layers    int     `json:"layers,omitempty"`
	GraphForm float64 `json:"quantized_graph_ms,omitempty"`
}

// scaling is how many times faster each cache is than the same on another number of devices.
type scaling struct {
	Quantized bench.Ratio `json:"quantized"`
	Full      bench.Ratio `json:"full"`
}

// ratioReport is everything a benchmark prints.
type ratioReport struct {
	reportHead
	Cache     string     `json:"cache"`
	Runs      int        `json:"runs"`
	Bandwidth float64    `json:"bandwidth_bytes_per_s,omitempty"`
	Rows      []ratioRow `json:"rows"`

	outcome *cli.Outcome
}

// newRatioReport is empty. What it holds when the command is interrupted is printed then.
func newRatioReport(c *cobra.Command, f *commonFlags, info device.Info, config kvq.Config) *ratioReport {
	r := &ratioReport{reportHead: newReportHead(c, info), Cache: config.String(), Runs: f.runs, outcome: cli.OutcomeOf(c.Context())}
	r.outcome.OnInterrupt(func() { _ = r.print(c.OutOrStdout(), f) })
	return r
}

func newRatioRow(what string, batch, tokens int, times []bench.Times, bytes, fullBytes int64) ratioRow {
	ms := func(t bench.Times) float64 { return float64(t.Min()) / float64(time.Millisecond) }
	return ratioRow{What: what, Batch: batch, Tokens: tokens, Quantized: ms(times[0]), Full: ms(times[1]), Ratio: times[0].Faster(times[1]),
		Bytes: bytes, FullBytes: fullBytes}
}

func (r *ratioReport) add(row ratioRow) error {
	return r.outcome.Update(func() error { r.Rows = append(r.Rows, row); return nil })
}

// table prints what there is, in full or when interrupted.
func (r *ratioReport) table(markdown bool, w io.Writer) {
	header := table.Row{"what", "batch", "tokens", "quantized ms", "full ms", "times faster: min / median", "bytes", "full bytes", "compile s", "full compile s", "of bandwidth"}
	several := slices.ContainsFunc(r.Rows, func(row ratioRow) bool { return row.Scaling != nil })
	if several {
		first := fmt.Sprintf(" times faster than on %d: min / median", r.Rows[0].Devices)
		header = append(header, "devices", "quantized"+first, "full"+first)
	}
	graphForm := slices.ContainsFunc(r.Rows, func(row ratioRow) bool { return row.GraphForm > 0 })
	if graphForm {
		header = append(header, "quantized by graph operations ms")
	}
	oneByOne := slices.ContainsFunc(r.Rows, func(row ratioRow) bool { return row.Slowest > 0 })
	if oneByOne {
		header = append(header, "one by one: usual step ms", "slowest step ms")
	}
	t := cli.NewTable(w, header)
	for _, row := range r.Rows {
		cells := table.Row{row.What, row.Batch, row.Tokens, fmt.Sprintf("%.3f", row.Quantized), fmt.Sprintf("%.3f", row.Full), row.Ratio.String(),
			row.Bytes, row.FullBytes, orNothing("%.1f", row.Compile), orNothing("%.1f", row.FullCompile), orNothing("%.0f %%", 100*row.Bandwidth)}
		if several {
			cells = append(cells, row.Devices)
		}
		if row.Scaling != nil {
			cells = append(cells, row.Scaling.Quantized.String(), row.Scaling.Full.String())
		}
		if graphForm {
			cells = append(cells, orNothing("%.3f", row.GraphForm))
		}
		if oneByOne {
			cells = append(cells, orNothing("%.3f", row.Usual), orNothing("%.3f", row.Slowest))
		}
		t.AppendRow(cells)
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%s against full precision, %d runs in alternation", r.Cache, r.Runs)
	if r.Bandwidth > 0 {
		fmt.Fprintf(w, "; memory bandwidth %.1f GB/s", r.Bandwidth/1e9)
	}
	fmt.Fprint(w, "\n\n")
	renderTable(t, 3, markdown)
}

func (r *ratioReport) print(w io.Writer, f *commonFlags) error {
	f.status.Close()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	r.table(f.markdown, w)
	return nil
}
