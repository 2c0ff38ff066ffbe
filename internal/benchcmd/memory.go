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

func newMemory() *cobra.Command {
	var f commonFlags
	var sides sideFlags
	var prompt bool
	c := &cobra.Command{
		Use:   "memory",
		Short: "Peak memory of the process and of the device in decode",
		Long: `memory compares what a process takes at most while it decodes, with the quantized and with the full-precision cache, each in a process of its
own. The cache is made up, unless --prompt has the model read prompts of that length; then the peak has what compiling took too. Device memory is what came into use on the GPU while the
process was at work, by nvidia-smi.`,
		Example: `  kvq bench memory --tokens 8192 --batches 8`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.memory(c, &sides, prompt) },
	}
	sides.register(c.Flags())
	f.register(c.Flags(), []int{8192}, []int{8}, 8)
	c.Flags().BoolVar(&prompt, "prompt", false, "let the model read prompts instead of making up a cache")
	cli.UnderMore(c.Flags(), "prompt")
	return c
}

// memoryRow is one side of memory's comparison, in bytes.
type memoryRow struct {
	Side    string `json:"side"`
	Batch   int    `json:"batch"`
	Tokens  int    `json:"tokens"`
	Formula int64  `json:"formula_bytes,omitempty"` // of the cache, predicted; not with --prompt
	Cache   int64  `json:"cache_bytes"`             // of the cache's live arrays
	Before  int64  `json:"before_bytes"`            // of the process with the model loaded
	Peak    int64  `json:"peak_bytes"`              // of the process
	Device  int64  `json:"device_bytes,omitempty"`
}

// memoryReport is what bench memory prints.
type memoryReport struct {
	reportHead
	Cache string      `json:"cache"`
	Rows  []memoryRow `json:"rows"`
}

func (r *memoryReport) print(w io.Writer, f *commonFlags) error {
	f.status.Close()
	if f.json {
		return cli.PrintJSON(w, r)
	}
	t := cli.NewTable(w, table.Row{"cache", "batch", "tokens", "cache by formula, bytes", "cache alive, bytes", "before MiB", "peak over before MiB", "peak of the process MiB", "device MiB"})
	for _, row := range r.Rows {
		formula := any(row.Formula)
		if row.Formula == 0 {
			formula = ""
		}
		t.AppendRow(table.Row{row.Side, row.Batch, row.Tokens, formula, row.Cache, mib(row.Before), mib(row.Peak - row.Before), mib(row.Peak), mib(row.Device)})
	}
	r.reportHead.print(w)
	fmt.Fprintf(w, "%s\n\n", r.Cache)
	renderTable(t, 3, f.markdown)
	return nil
}

func (f *commonFlags) memory(c *cobra.Command, flags *sideFlags, prompt bool) error {
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
	report := &memoryReport{Cache: cache.String()}
	outcome := cli.OutcomeOf(c.Context())
	outcome.OnInterrupt(func() { _ = report.print(c.OutOrStdout(), f) })
	for _, batch := range f.batches {
		for _, tokens := range f.tokens {
			fill := bench.Request{Op: "fill", Batch: batch, Context: tokens, Tokens: f.steps}
			if prompt {
				if tokens+f.steps > config.MaxPositions {
					return usererr.New("--tokens %d and --steps %d, the model reads at most %d", tokens, f.steps, config.MaxPositions)
				}
				fill = bench.Request{Op: "prefill", IDs: madeUpPrompt(config, batch, tokens), Limit: f.steps + 1, Block: min(f.steps, 128)}
			}
			// One after the other and each anew: neither the machine nor a process has to hold
			// both.
			for _, full := range []bool{false, true} {
				row, head, err := f.memoryRow(c, flags, full, fill)
				if err != nil {
					return err
				}
				row.Batch, row.Tokens = batch, tokens
				_ = outcome.Update(func() error { report.reportHead, report.Rows = head, append(report.Rows, row); return nil })
			}
		}
	}
	return outcome.Print(func() error { return report.print(c.OutOrStdout(), f) })
}

func (f *commonFlags) memoryRow(c *cobra.Command, flags *sideFlags, full bool, fill bench.Request) (memoryRow, reportHead, error) {
	name, args := "quantized", cacheArgs(c.Flags())
	if full {
		name, args = "full precision", []string{"--cache=full"}
	}
	f.status.Stage("starting a process that loads the model (%s)", name)
	s, err := kvqSide(c, name, append(flags.args(c.Flags()), args...)...)
	if err != nil {
		return memoryRow{}, reportHead{}, err
	}
	defer s.Close()
	var replies []bench.Reply
	f.status.Stage("compiling and decoding in it (%s)", name)
	for _, r := range []bench.Request{fill, {Op: "decode", Tokens: f.steps}, {Op: "end"}} {
		reply, err := s.Do(r)
		if err != nil {
			return memoryRow{}, reportHead{}, err
		}
		replies = append(replies, reply)
	}
	filled, decoded, ended := replies[0], replies[1], replies[2]
	return memoryRow{Side: name, Formula: filled.FormulaBytes, Cache: filled.CacheBytes + ended.CacheBytes, Before: decoded.Before,
		Peak: decoded.Peak, Device: s.Device}, newSideHead(c, s), nil
}
