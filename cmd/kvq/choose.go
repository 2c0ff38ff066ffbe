package main

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/llama/fit"
)

func init() { register(newChoose) }

// chooseFlags are those of choose.
type chooseFlags struct {
	model          cli.ModelFlags
	texts          textFiles
	maxKL          float64
	batch, context int
	json           bool
}

func newChoose() *cobra.Command {
	var f chooseFlags
	c := &cobra.Command{
		Use:   "choose",
		Short: "Find the smallest cache that predicts a text well enough, and fits",
		Long: `choose lets the model read texts through the presets, from the fewest bits up, and takes the first whose KL divergence from
full precision is at most --max-kl, on average. Then it says whether a context fits with it. Without --text it reads a built-in
story. A few hundred tokens of one kind say little about another kind: take a text of yours.`,
		Example: `  kvq choose --text mine.txt --max-kl 0.01
  kvq choose --text mine.txt --max-kl 0.01 --context 8192 --max-memory 24GiB`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.texts.register(fs)
	fs.Float64Var(&f.maxKL, "max-kl", 0.01, "mean KL divergence from full precision that is good enough, in nats")
	fs.IntVar(&f.context, "context", 0, "tokens of each row that have to fit (0: as many as the model reads)")
	fs.IntVar(&f.batch, "batch", 1, "rows that have to fit")
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	cli.RegisterJSON(fs, &f.json)
	return c
}

// chosenJSON is what choose prints with --json.
type chosenJSON struct {
	Model  string          `json:"model"`
	Device string          `json:"device"`
	Preset string          `json:"preset"` // the choice; "" when there is none
	Tried  []candidateJSON `json:"tried"`
	Needs  *fit.Needs      `json:"needs"` // of the choice, with so long a context; null without one
	Room   *cli.Room       `json:"room"`  // null where it is not known
	Fits   *bool           `json:"fits"`  // null where it is not known
}

type candidateJSON struct {
	Preset     string   `json:"preset"`
	Bits       float64  `json:"bits_per_value"`
	KL         *float64 `json:"kl_mean"`
	Perplexity *float64 `json:"perplexity"`
	Agreement  *float64 `json:"top1_agreement"`
	Cache      int64    `json:"cache_bytes"` // for so long a context
}

func (f *chooseFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	if !(f.maxKL > 0) {
		return usererr.New("--max-kl %g, want more than 0: only full precision costs nothing", f.maxKL)
	}
	if f.batch < 1 {
		return usererr.New("--batch %d, want at least 1", f.batch)
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	config := files.Config()
	if f.context < 0 || f.context > config.MaxPositions {
		return usererr.New("--context %d, want 1 to %d, the most that the model reads", f.context, config.MaxPositions)
	}
	if f.context == 0 {
		f.context = config.MaxPositions
	}
	texts, err := f.texts.read(c.InOrStdin(), files)
	if err != nil {
		return err
	}
	candidates, names := f.candidates(config)
	status := f.model.Status(errs)
	defer status.Close()
	model, err := f.model.Load(ctx, files, errs)
	if err != nil {
		return err
	}
	defer model.Close(ctx)
	out := chosenJSON{Model: files.Path(), Device: model.Device, Tried: []candidateJSON{}}
	chosen, seen, err := evaluate.Cheapest(status.Context(ctx), model.Model, texts, f.maxKL, candidates, evaluate.Options{Prefill: f.texts.prefill,
		Progress: func(done, total int) error { status.Detail("%d of %d tokens", done, total); return nil }})
	status.Close()
	if ctx.Err() != nil || err != nil && len(seen) < len(candidates) {
		return err
	}
	for _, s := range seen {
		plan, planErr := cli.PlanFor(s.Config, config.Share(f.model.Devices), f.batch, f.context, model.DType())
		if planErr != nil {
			return planErr
		}
		out.Tried = append(out.Tried, candidateJSON{Preset: names[s.Config], Bits: s.Bits, KL: cli.NumberOrNull(s.KL),
			Perplexity: cli.NumberOrNull(s.Perplexity), Agreement: cli.NumberOrNull(s.Agreement), Cache: plan.Memory().Total()})
	}
	if err == nil {
		out.Preset = names[chosen]
		if fitErr := f.fits(&out, model, files, chosen); fitErr != nil {
			return fitErr
		}
	}
	if printErr := f.print(c.OutOrStdout(), out); printErr != nil {
		return printErr
	}
	return err
}

// candidates are the presets that the model can have, with their names.
func (f *chooseFlags) candidates(config llama.Config) (list []kvq.Config, names map[kvq.Config]string) {
	names = map[kvq.Config]string{}
	for _, name := range kvq.Presets() {
		preset, err := llama.PresetFor(name, config)
		if err != nil {
			continue
		}
		if _, err := cli.PlanFor(preset, config, 1, f.context, f.model.DTypeOn(false)); err == nil {
			list, names[preset] = append(list, preset), name
		}
	}
	return list, names
}

// fits says whether the context fits with the chosen cache.
func (f *chooseFlags) fits(out *chosenJSON, model *cli.LoadedModel, files *llama.Files, chosen kvq.Config) error {
	request := fit.Request{Model: files.Config(), DType: model.DType(), Cache: chosen, Batch: f.batch, Prompt: f.context, Capacity: f.context, Devices: f.model.Devices,
		Backend: model.Backend()}
	var err error
	if request.Packed, err = f.model.Packs(files, model.GPU, f.model.Devices); err != nil {
		return err
	}
	needs, err := request.Needs(!model.GPU)
	if err != nil {
		return err
	}
	out.Needs = &needs
	if model.Room.Bytes == 0 {
		return nil
	}
	fits := needs.Total() <= model.Room.Bytes
	out.Room, out.Fits = &model.Room, &fits
	return nil
}

func (f *chooseFlags) print(w io.Writer, out chosenJSON) error {
	if f.json {
		return cli.PrintJSON(w, out)
	}
	t := cli.NewTable(w, table.Row{"cache", "bits a value", "KL", "top-1", "perplexity", fmt.Sprintf("%d tokens", f.context)})
	for _, c := range out.Tried {
		t.AppendRow(table.Row{c.Preset, fmt.Sprintf("%.4g", c.Bits), number(c.KL, "%.5f"), percent(c.Agreement), number(c.Perplexity, "%.3f"), cli.InUnits(c.Cache)})
	}
	t.Render()
	if out.Preset == "" {
		return nil
	}
	verdict := ""
	if out.Fits != nil && *out.Fits {
		verdict = fmt.Sprintf("%d tokens need %s of %s (%s): they fit\n", f.context, cli.InUnits(out.Needs.Total()), cli.InUnits(out.Room.Bytes), out.Room.Source)
	} else if out.Fits != nil {
		verdict = fmt.Sprintf("%d tokens need %s of %s (%s): they do not fit; kvq memory says what does\n", f.context, cli.InUnits(out.Needs.Total()), cli.InUnits(out.Room.Bytes), out.Room.Source)
	}
	_, err := fmt.Fprintf(w, "%stake it with: --preset %s\n", verdict, out.Preset)
	return err
}
