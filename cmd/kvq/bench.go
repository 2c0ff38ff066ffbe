package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

func init() { register(newBench) }

// benchFlags are those that all benchmarks share.
type benchFlags struct {
	cache    cli.CacheFlags
	tokens   []int
	batches  []int
	runs     int
	steps    int
	markdown bool
	json     bool
}

func (f *benchFlags) register(fs *pflag.FlagSet, tokens, batches []int, steps int) {
	f.cache.Register(fs)
	fs.IntSliceVar(&f.tokens, "tokens", tokens, "contexts: tokens that the cache holds")
	fs.IntSliceVar(&f.batches, "batches", batches, "rows of a batch")
	fs.IntVar(&f.runs, "runs", 7, "counted runs of each, in alternation")
	fs.IntVar(&f.steps, "steps", steps, "tokens of one run")
	fs.BoolVar(&f.markdown, "markdown", false, "print a Markdown table")
	cli.RegisterJSON(fs, &f.json)
}

// parse checks the flags, and returns the cache that they ask for.
func (f *benchFlags) parse(fs *pflag.FlagSet) (kvq.Config, error) {
	if err := f.check(); err != nil {
		return kvq.Config{}, err
	}
	return f.cache.Parse(fs)
}

func (f *benchFlags) check() error {
	for _, list := range []struct {
		name   string
		values []int
	}{{"tokens", f.tokens}, {"batches", f.batches}, {"runs", []int{f.runs}}, {"steps", []int{f.steps}}} {
		for _, v := range list.values {
			if v < 1 {
				return usererr.New("--%s %d, want at least 1", list.name, v)
			}
		}
	}
	return nil
}

// benchRow is one comparison: the quantized cache against the full-precision one.
type benchRow struct {
	What      string      `json:"what"`
	Batch     int         `json:"batch"`
	Tokens    int         `json:"tokens"`
	Quantized float64     `json:"quantized_ms"` // the shortest time of a step
	Full      float64     `json:"full_ms"`
	Ratio     bench.Ratio `json:"times_faster"`
	Bytes     int64       `json:"bytes"`
	FullBytes int64       `json:"full_bytes"`
	Devices   int         `json:"devices,omitempty"` // that the model is spread over; decode alone
	// Scaling compares with the row of the first number of devices; nil for that row.
	Scaling *scaling `json:"times_faster_than_first_devices,omitempty"`
	// Compile is what the quantized and the full-precision decode graph took to compile, in seconds.
	Compile     float64 `json:"compile_s,omitempty"`
	FullCompile float64 `json:"full_compile_s,omitempty"`
	// Bandwidth is the bytes of the quantized cache that a step reads over the shortest time, as a part of the device's bandwidth; attention alone.
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

// benchReport is everything a benchmark prints.
type benchReport struct {
	benchHead
	Cache     string     `json:"cache"`
	Runs      int        `json:"runs"`
	Bandwidth float64    `json:"bandwidth_bytes_per_s,omitempty"`
	Rows      []benchRow `json:"rows"`

	outcome *cli.Outcome
}

// newReport is empty. What it holds when the command is interrupted is printed then.
func newReport(c *cobra.Command, f *benchFlags, info device.Info, config kvq.Config) *benchReport {
	r := &benchReport{benchHead: newBenchHead(c, info), Cache: config.String(), Runs: f.runs, outcome: cli.OutcomeOf(c.Context())}
	r.outcome.OnInterrupt(func() { _ = r.print(c.OutOrStdout(), f) })
	return r
}

func newBenchRow(what string, batch, tokens int, times []bench.Times, bytes, fullBytes int64) benchRow {
	ms := func(t bench.Times) float64 { return float64(t.Min()) / float64(time.Millisecond) }
	return benchRow{What: what, Batch: batch, Tokens: tokens, Quantized: ms(times[0]), Full: ms(times[1]), Ratio: times[0].Faster(times[1]),
		Bytes: bytes, FullBytes: fullBytes}
}

func (r *benchReport) add(row benchRow) error {
	return r.outcome.Update(func() error { r.Rows = append(r.Rows, row); return nil })
}

// table prints what there is, in full or when interrupted.
func (r *benchReport) table(markdown bool, w io.Writer) {
	t := table.NewWriter()
	header := table.Row{"what", "batch", "tokens", "quantized ms", "full ms", "times faster: min / median", "bytes", "full bytes", "compile s", "full compile s", "of bandwidth"}
	several := slices.ContainsFunc(r.Rows, func(row benchRow) bool { return row.Scaling != nil })
	if several {
		first := fmt.Sprintf(" times faster than on %d: min / median", r.Rows[0].Devices)
		header = append(header, "devices", "quantized"+first, "full"+first)
	}
	graphForm := slices.ContainsFunc(r.Rows, func(row benchRow) bool { return row.GraphForm > 0 })
	if graphForm {
		header = append(header, "quantized by graph operations ms")
	}
	t.AppendHeader(header)
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
		t.AppendRow(cells)
	}
	r.benchHead.print(w)
	fmt.Fprintf(w, "%s against full precision, %d runs in alternation", r.Cache, r.Runs)
	if r.Bandwidth > 0 {
		fmt.Fprintf(w, "; memory bandwidth %.1f GB/s", r.Bandwidth/1e9)
	}
	fmt.Fprint(w, "\n\n")
	renderTable(w, t, markdown)
}

func (r *benchReport) print(w io.Writer, f *benchFlags) error {
	if f.json {
		return cli.PrintJSON(w, r)
	}
	r.table(f.markdown, w)
	return nil
}

func newBench() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Time the quantized cache against the full-precision one",
		Long: `bench times the quantized cache against the full-precision one on the same device, in alternation, and prints how many times faster it
is: the ratio of the shortest times, and the median ratio of runs that follow each other.`,
		Args: cobra.NoArgs,
		// Times of compiling are times of compiling.
		PersistentPreRunE: func(*cobra.Command, []string) error { return os.Setenv(asset.EnvCompiled, asset.Off) },
		RunE: func(c *cobra.Command, _ []string) error {
			return usererr.New("want one of: attention, decode, prefill, compile, growth, memory, peers")
		},
	}
	c.AddCommand(newBenchAttention(), newBenchDecode(), newBenchPrefill(), newBenchCompile(), newBenchGrowth(), newBenchMemory(), newBenchPeers(), newBenchServe())
	return c
}

// attentionShapes are heads, key/value heads and head dimension of known models.
var attentionShapes = map[string]bench.AttentionShape{
	"smollm2":   {Heads: 9, KVHeads: 3, HeadDim: 64},
	"llama2-7b": {Heads: 32, KVHeads: 32, HeadDim: 128},
	"llama3-8b": {Heads: 32, KVHeads: 8, HeadDim: 128},
}

func newBenchAttention() *cobra.Command {
	var f benchFlags
	var backend string
	var models []string
	var o attentionFlags
	c := &cobra.Command{
		Use:     "attention",
		Short:   "Decode attention alone, a layer's time",
		Example: `  kvq bench attention --shape smollm2 --tokens 1024,4096 --runs 3`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return f.attention(c, backend, models, o)
		},
	}
	fs := c.Flags()
	cli.RegisterBackend(fs, &backend)
	f.register(fs, []int{1024, 4096, 16384, 32768}, []int{1}, 20)
	fs.StringSliceVar(&models, "shape", []string{"smollm2", "llama2-7b"}, "`shape` of attention: smollm2, llama2-7b or llama3-8b")
	fs.IntVar(&o.layers, "layers", 0, "layers that a step goes through (0: one; on a GPU enough for 256 MB of full precision, 4 to 12)")
	fs.BoolVar(&o.graphForm, "graph-form", false, "time the quantized cache with graph operations alone too, where it has a kernel otherwise")
	return c
}

// attentionFlags are those of attention alone.
type attentionFlags struct {
	layers    int
	graphForm bool
}

// layersFor is how many layers a step goes through. A GPU's own cache holds tens of MB, so a single layer would be read from there, which a model's layers are
// not; and what a step does once is a model's layers' to share.
func (o attentionFlags) layersFor(info device.Info, shape bench.AttentionShape, tokens int) int {
	switch {
	case o.layers > 0:
		return o.layers
	case !info.GPU():
		return 1
	}
	bytes := 4 * shape.Batch * shape.KVHeads * shape.HeadDim * tokens // keys and values of 2 bytes
	return max(4, min(12, (256<<20)/bytes))
}

func (f *benchFlags) attention(c *cobra.Command, backendName string, models []string, o attentionFlags) error {
	ctx := c.Context()
	config, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	if o.layers < 0 {
		return usererr.New("--layers %d, want 0 or more", o.layers)
	}
	for _, name := range models {
		if _, ok := attentionShapes[name]; !ok {
			return usererr.New("--shape %q, want smollm2, llama2-7b or llama3-8b", name)
		}
	}
	backend, info, err := cli.OpenDevice(backendName)
	if err != nil {
		return err
	}
	defer backend.Finalize()
	report := newReport(c, f, info, config)
	size := 1 << 28
	if info.GPU() {
		size = 1 << 32
	}
	if report.Bandwidth, err = bench.Bandwidth(ctx, backend, size, 3); err != nil {
		return err
	}
	for _, name := range models {
		for _, batch := range f.batches {
			for _, tokens := range f.tokens {
				shape := attentionShapes[name]
				shape.Batch, shape.DType = batch, benchDType(info)
				shape.Layers = o.layersFor(info, shape, tokens)
				if err := f.attentionRow(ctx, backend, report, config, name, shape, tokens, o.graphForm); err != nil {
					return err
				}
			}
		}
	}
	return report.outcome.Print(func() error { return report.print(c.OutOrStdout(), f) })
}

// benchDType is what a user would keep a full-precision cache in on the device.
func benchDType(info device.Info) dtypes.DType {
	if info.GPU() {
		return dtypes.BFloat16
	}
	return dtypes.Float32
}

func (f *benchFlags) attentionRow(ctx context.Context, backend compute.Backend, report *benchReport, config kvq.Config, name string,
	shape bench.AttentionShape, tokens int, graphForm bool) error {
	quantized, err := bench.NewAttention(backend, config, shape, tokens, f.steps)
	if err != nil {
		return err
	}
	defer quantized.Finalize()
	full, err := bench.NewAttention(backend, kvq.Config{}, shape, tokens, f.steps)
	if err != nil {
		return err
	}
	defer full.Finalize()
	runs := []bench.Run{quantized.Run, full.Run}
	if graphForm {
		shape.GraphForm = true
		graph, err := bench.NewAttention(backend, config, shape, tokens, f.steps)
		if err != nil {
			return err
		}
		defer graph.Finalize()
		runs = append(runs, graph.Run)
	}
	times, err := bench.Alternate(ctx, f.runs, runs...)
	if err != nil {
		return err
	}
	row := newBenchRow(fmt.Sprintf("attention %s", name), shape.Batch, tokens, times, quantized.Bytes(), full.Bytes())
	row.Layers = shape.Layers
	if graphForm {
		row.GraphForm = float64(times[2].Min()) / float64(time.Millisecond)
	}
	row.Bandwidth = float64(quantized.Read()) / times[0].Min().Seconds() / report.Bandwidth
	return report.add(row)
}
