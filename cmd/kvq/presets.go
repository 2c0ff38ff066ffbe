package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute/dtypes"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/docs"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

func init() { register(newPresets) }

// presetsFlags are those of presets.
type presetsFlags struct {
	model                       cli.ModelFlags
	measure, json               bool
	batch, context, runs, steps int
}

func newPresets() *cobra.Command {
	var f presetsFlags
	c := &cobra.Command{
		Use:   "presets [MODEL]",
		Short: "The caches that have a name: bits, bytes, quality, when to take which",
		Long: `presets tells the names of --preset apart: what a value and a token take in the model's cache, how far its predictions are
from full precision, and when to take it. The divergence was measured on another model's predictions, that of the set-up, and
the line below the table says when; kvq evaluate measures it with yours.

--measure also times a step of decoding here, in a cache that holds --context tokens, against full precision in alternation. That
compiles a graph for each cache, minutes for a large model.`,
		Example: `  kvq presets
  kvq presets meta-llama/Llama-2-7b-chat-hf --offline
  kvq presets --measure --context 2048`,
		Args: oneText,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	fs := c.Flags()
	fs.BoolVar(&f.measure, "measure", false, "time a step of decoding with each cache, on this machine")
	fs.IntVar(&f.context, "context", 4096, "tokens that the cache holds while it is timed (at most what the model reads)")
	fs.IntVar(&f.batch, "batch", 1, "rows that are timed")
	fs.IntVar(&f.runs, "runs", 5, "counted runs of each, in alternation with full precision")
	fs.IntVar(&f.steps, "steps", 16, "tokens of one run")
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	cli.RegisterJSON(fs, &f.json)
	return c
}

// presetsJSON is what presets prints with --json.
type presetsJSON struct {
	Model    string         `json:"model"`
	DType    string         `json:"dtype"`    // of what a cache keeps exact, and of its scales where the cache does not say
	Quality  *docs.Presets  `json:"quality"`  // where the divergences come from
	Measured *measuredSpeed `json:"measured"` // null without --measure
	Presets  []presetJSON   `json:"presets"`
}

// measuredSpeed says how the speeds were measured.
type measuredSpeed struct {
	Device  string `json:"device"`
	CPU     string `json:"cpu"`
	Batch   int    `json:"batch"`
	Context int    `json:"context"`
	Runs    int    `json:"runs"`
	Steps   int    `json:"steps"`
}

// presetJSON is one cache.
type presetJSON struct {
	Name   string  `json:"name"`
	Config string  `json:"config"`
	Bits   float64 `json:"bits_per_value"` // with scales of 16 bits where the cache does not say
	Here   float64 `json:"bits_here"`      // in this dtype
	// bits_per_value, and metric_bytes spread over a row of 2,048 tokens, as docs/quality.md counts
	InRow float64 `json:"bits_in_row"`
	Bytes float64 `json:"bytes_per_token"` // of a token in codes, in this dtype
	Exact int     `json:"exact_tokens"`    // of a row that are not in codes, at most: window and sinks
	// key/value bits of single layers, as --layer-bits takes them, searched for this model
	LayerBits string `json:"layer_bits,omitempty"`
	// of a row beside its tokens: what feedback keeps of its prompt
	Metric int64 `json:"metric_bytes,omitempty"`
	// measured on another model, see quality; null where it was not
	KL        *float64     `json:"kl_mean"`
	Agreement *float64     `json:"top1_agreement"`
	Milli     float64      `json:"step_ms,omitempty"`      // the shortest, measured here
	Faster    *bench.Ratio `json:"times_faster,omitempty"` // than full precision, measured here
	Take      string       `json:"take"`
	Error     string       `json:"error,omitempty"` // why the model cannot have it

	config kvq.Config
	bits   cli.Bits
}

func (f *presetsFlags) run(c *cobra.Command, args []string) error {
	if err := f.model.Take(args); err != nil {
		return err
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	if err := f.check(c, files.Config()); err != nil {
		return err
	}
	dtype := f.model.DTypeOn(f.model.GPUAhead())
	j, err := describePresets(files, dtype)
	if err != nil {
		return err
	}
	outcome := cli.OutcomeOf(c.Context())
	finish := func() error {
		if f.json {
			return cli.PrintJSON(c.OutOrStdout(), j)
		}
		return j.print(c.OutOrStdout())
	}
	outcome.OnInterrupt(func() { _ = finish() })
	if f.measure {
		err = f.time(c, files, j, outcome)
	}
	return outcome.End(c.Context(), err, finish)
}

func (f *presetsFlags) check(c *cobra.Command, model llama.Config) error {
	for _, n := range []struct {
		flag string
		is   *int
		most int
	}{{"context", &f.context, model.MaxPositions - f.steps}, {"batch", &f.batch, 0}, {"runs", &f.runs, 0}, {"steps", &f.steps, 128}} {
		given := c.Flags().Changed(n.flag)
		switch {
		case *n.is < 1:
			return usererr.New("--%s %d, want at least 1", n.flag, *n.is)
		case n.most > 0 && *n.is > n.most && given:
			return usererr.New("--%s %d, want at most %d", n.flag, *n.is, n.most)
		case n.most > 0:
			*n.is = min(*n.is, n.most)
		}
		if given && !f.measure {
			return usererr.New("--%s is about --measure, which was not asked for", n.flag)
		}
	}
	return nil
}

// describePresets says everything that needs no device.
func describePresets(files *llama.Files, dtype dtypes.DType) (*presetsJSON, error) {
	figures, err := docs.PresetFigures()
	if err != nil {
		return nil, err
	}
	model := files.Config()
	j := &presetsJSON{Model: files.Path(), DType: strings.ToLower(dtype.String()), Quality: &figures}
	for _, name := range cli.PresetNames() {
		config, err := cli.PresetFor(name, model)
		if err != nil {
			return nil, err
		}
		p := presetJSON{Name: name, config: config, Take: cli.TakeIt(name)}
		p.Config, p.LayerBits = p.config.String(), p.config.LayerBits
		if p.bits, err = cli.BitsOf(p.config, model, dtype); err != nil {
			p.Error = oneLine(err)
		}
		p.Bits, p.Here, p.InRow = p.bits.Named, p.bits.Here, p.bits.InRow
		p.Bytes = p.Here / 8 * float64(2*model.Layers*model.KVHeads*model.HeadDim)
		if measured, ok := figures.Of(name); ok {
			p.KL, p.Agreement = &measured.KL, &measured.Agreement
		} else if name == cli.FullName {
			p.KL, p.Agreement = new(0.0), new(1.0) // what the others are compared with
		}
		if plan, err := cli.PlanFor(p.config, model, 1, model.MaxPositions, dtype); err == nil && p.config.Quantized() {
			p.Exact, p.Metric = exactTokens(plan), plan.Memory().Metric
		}
		j.Presets = append(j.Presets, p)
	}
	return j, nil
}

func (j *presetsJSON) print(w io.Writer) error {
	t := cli.NewTable(w, table.Row{"name", "bits a value", "bytes a token", "KL", "speed", "take it"})
	for _, p := range j.Presets {
		if p.Error != "" {
			t.AppendRow(table.Row{p.Name, "-", "-", "-", "", "not for this model: " + p.Error})
			continue
		}
		speed := ""
		switch {
		case p.Faster != nil:
			speed = fmt.Sprintf("x %.2f", p.Faster.Median)
		case p.Milli > 0:
			speed = fmt.Sprintf("%.1f ms", p.Milli)
		}
		kl := number(p.KL, "%.5f")
		if !p.config.Quantized() {
			kl = "0"
		}
		bits := p.bits.String()
		if p.LayerBits != "" {
			bits += " *"
		}
		t.AppendRow(table.Row{p.Name, bits, humanize.Comma(int64(p.Bytes)), kl, speed, p.Take})
	}
	t.Render()
	for _, p := range j.Presets {
		if note := p.bits.Note(p.Name); note != "" {
			fmt.Fprintln(w, note)
		}
	}
	exact, metric, own, more := 0, int64(0), false, []string{}
	for _, p := range j.Presets {
		exact, metric, own = max(exact, p.Exact), max(metric, p.Metric), own || p.LayerBits != ""
		if p.Metric > 0 && p.Error == "" {
			more = append(more, fmt.Sprintf("%s %.4g", p.Name, p.InRow))
		}
	}
	if own {
		fmt.Fprintln(w, "*: on average; they were spread over the layers of this model")
	}
	fmt.Fprintf(w, "bytes: of a token in codes; up to %d of a row are exact, see kvq memory\n", exact)
	if metric > 0 {
		fmt.Fprintf(w, "feedback keeps up to %s of a row's prompt beside them\n", cli.InUnits(metric))
		fmt.Fprintf(w, "(bits with it over %s tokens: %s)\n", humanize.Comma(cli.RowTokens), strings.Join(more, ", "))
	}
	q := j.Quality
	fmt.Fprintf(w, "KL: %s's, on texts that nobody tuned on\n(%s, %s tokens); kvq evaluate measures yours\n", q.Model, q.Date, humanize.Comma(int64(q.Tokens)))
	if !own {
		fmt.Fprintln(w, "(there with bits spread over layers, where few; kvq layerbits does it for yours)")
	}
	if m := j.Measured; m != nil {
		_, err := fmt.Fprintf(w, "speed: of a step with %s tokens in the cache and batch %d, against full precision\n(%s, %s)\n",
			humanize.Comma(int64(m.Context)), m.Batch, m.Device, m.CPU)
		return err
	}
	_, err := fmt.Fprintln(w, "speed: --measure times it on this machine")
	return err
}
