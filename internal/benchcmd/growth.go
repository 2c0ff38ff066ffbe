package benchcmd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

func newGrowth() *cobra.Command {
	var f commonFlags
	var model cli.ModelFlags
	var random, plots string
	var join []string
	c := &cobra.Command{
		Use:   "growth",
		Short: "Time of a token and bytes of the cache, against the context",
		Long: `growth times the decode loop over made-up caches of growing length, and says what the memory's bandwidth allows: weights and cache read once a
token. With --plot it also draws both, as PREFIX-time.svg and PREFIX-bytes.svg. Past the context that a model was made for its tokens mean
nothing, but cost the same. --join measures nothing: it puts together what runs of this command with other --tokens printed with --json.`,
		Example: `  kvq bench growth --tokens 512,2048 --batches 1 --runs 3
  kvq bench growth --join short.json,long.json --plot growth --markdown`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkPlot(plots); err != nil {
				return err
			}
			if len(join) > 0 {
				report, err := joinGrowth(join)
				if err != nil {
					return err
				}
				return report.finish(c.OutOrStdout(), &f, plots)
			}
			return f.growth(c, &model, random, plots)
		},
	}
	model.Register(c.Flags())
	f.register(c.Flags(), []int{512, 1024, 2048, 4096, 8192, 16384, 32768}, []int{1}, 16)
	registerRandom(c.Flags(), &random)
	c.Flags().StringVar(&plots, "plot", "", "draw plots to files that begin with this `prefix`")
	c.Flags().StringSliceVar(&join, "join", nil, "measure nothing, put together these `files`, written with --json")
	cli.UnderMore(c.Flags(), "plot", "join")
	return c
}

// growthReport adds the limit to the rows.
type growthReport struct {
	*ratioReport
	Weights int64         `json:"weight_bytes"`
	Limits  []growthLimit `json:"limits"` // one for each row
}

// growthLimit is what the bandwidth allows, in ms a token.
type growthLimit struct {
	Quantized float64 `json:"quantized_ms"`
	Full      float64 `json:"full_ms"`
}

func (r *growthReport) limit(row ratioRow) growthLimit {
	ms := func(bytes int64) float64 { return 1e3 * float64(r.Weights+bytes) / r.Bandwidth }
	return growthLimit{ms(row.Bytes), ms(row.FullBytes)}
}

// limits adds those of the rows that have none yet.
func (r *growthReport) limits() {
	for _, row := range r.Rows[len(r.Limits):] {
		r.Limits = append(r.Limits, r.limit(row))
	}
}

func (r *growthReport) print(w io.Writer, f *commonFlags) error {
	f.status.Close()
	r.limits()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	t := cli.NewTable(w, table.Row{"tokens", "batch", "quantized ms", "limit ms", "full ms", "limit ms", "times faster: min / median", "cache MiB", "full MiB", "compile s", "full compile s"})
	for i, row := range r.Rows {
		limit := r.Limits[i]
		t.AppendRow(table.Row{row.Tokens, row.Batch, fmt.Sprintf("%.2f", row.Quantized), fmt.Sprintf("%.2f", limit.Quantized), fmt.Sprintf("%.2f", row.Full),
			fmt.Sprintf("%.2f", limit.Full), row.Ratio.String(), mib(row.Bytes), mib(row.FullBytes), orNothing("%.1f", row.Compile), orNothing("%.1f", row.FullCompile)})
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%s against full precision, %d runs in alternation; weights %s MiB, memory bandwidth %.1f GB/s\n\n", r.Cache, r.Runs, mib(r.Weights), r.Bandwidth/1e9)
	renderTable(t, 2, f.markdown)
	return nil
}

func (f *commonFlags) growth(c *cobra.Command, flags *cli.ModelFlags, random, plots string) error {
	config, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	if len(f.batches) != 1 {
		return usererr.New("--batches with %d numbers, want one", len(f.batches))
	}
	f.status = flags.Status(c.ErrOrStderr())
	defer f.status.Close()
	m, info, name, closeModel, err := f.benchModel(c, flags, random)
	if err != nil {
		return err
	}
	defer closeModel()
	config = f.fit(c, config, m.Config())
	report := &growthReport{ratioReport: newRatioReport(c, f, info, config), Weights: m.Bytes()}
	report.outcome.OnInterrupt(func() { _ = report.print(c.OutOrStdout(), f) })
	size := 1 << 28
	if info.GPU() {
		size = 1 << 32
	}
	f.status.Stage("measuring the memory's bandwidth")
	if report.Bandwidth, err = bench.Bandwidth(c.Context(), m.Backend(), size, 3); err != nil {
		return err
	}
	for _, tokens := range f.tokens {
		if err := f.growthRow(c, report, m, config, name, tokens); err != nil {
			return err
		}
	}
	return report.outcome.Print(func() error { return report.finish(c.OutOrStdout(), f, plots) })
}

func checkPlot(prefix string) error {
	if prefix == "" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(prefix)); err != nil || !info.IsDir() {
		return usererr.New("--plot %q: there is no folder %s", prefix, filepath.Dir(prefix))
	}
	return nil
}

// finish draws, if a prefix for plots is given, and prints.
func (r *growthReport) finish(w io.Writer, f *commonFlags, plots string) error {
	if plots != "" {
		if err := r.plot(plots); err != nil {
			return err
		}
	}
	return r.print(w, f)
}

// growthRow has generators of its own, so that compiled graphs of other lengths take no memory.
func (f *commonFlags) growthRow(c *cobra.Command, report *growthReport, m *llama.Model, config kvq.Config, name string, tokens int) error {
	full, err := llama.NewGenerator(m, kvq.Config{})
	if err != nil {
		return err
	}
	defer full.Finalize()
	quantized, err := llama.NewGenerator(m, config)
	if err != nil {
		return err
	}
	defer quantized.Finalize()
	return f.decodeRows(c.Context(), report.ratioReport, name, []*decodePair{{model: m, quantized: quantized, full: full}}, f.batches[0], tokens)
}

func (r *growthReport) plot(prefix string) error {
	r.limits()
	line := func(name string, limit bool, y func(int) float64) bench.Line {
		l := bench.Line{Name: name, Limit: limit}
		for i, row := range r.Rows {
			l.X, l.Y = append(l.X, float64(row.Tokens)), append(l.Y, y(i))
		}
		return l
	}
	times, err := bench.Plot("Time of a token: "+r.Device, "context, tokens", "ms a token",
		line(r.Cache, false, func(i int) float64 { return r.Rows[i].Quantized }),
		line(r.Cache+", limit by bandwidth", true, func(i int) float64 { return r.Limits[i].Quantized }),
		line("full precision", false, func(i int) float64 { return r.Rows[i].Full }),
		line("full precision, limit by bandwidth", true, func(i int) float64 { return r.Limits[i].Full }))
	if err != nil {
		return err
	}
	bytes, err := bench.Plot("Bytes of the cache", "context, tokens", "MiB",
		line(r.Cache, false, func(i int) float64 { return float64(r.Rows[i].Bytes) / (1 << 20) }),
		line("full precision", false, func(i int) float64 { return float64(r.Rows[i].FullBytes) / (1 << 20) }))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"time": times, "bytes": bytes} {
		path := strings.TrimSuffix(prefix, "-") + "-" + name + ".svg"
		if err := os.WriteFile(path+".tmp", data, 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return err
		}
	}
	return nil
}
