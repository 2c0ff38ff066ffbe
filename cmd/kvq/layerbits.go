package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama/evaluate"
)

func init() { register(newLayerBits) }

// layerBitsFlags are those of layerbits.
type layerBitsFlags struct {
	model cli.ModelFlags
	cache cli.CacheFlags
	texts textFiles
	bits  float64
	json  bool
}

func newLayerBits() *cobra.Command {
	var f layerBitsFlags
	c := &cobra.Command{
		Use:   "layerbits",
		Short: "Spread bits over a model's layers, to where they help most",
		Long: `layerbits lets the model read texts through caches in which one layer's keys, or its values, are coded coarsely and all else
finely. Then it gives single layers more bits, where that saves most, up to --bits a value. It prints the --layer-bits to take.
One cache is compiled and read for each layer's keys and values: minutes to an hour. Take texts of several kinds, of which
--max-tokens 320 each are enough: what is coded comes after the newest 64 tokens. Without --text it reads a built-in story.`,
		Example: `  kvq layerbits --preset smallest --layer-bits "" --bits 3.3 --text mine.txt --text other.txt --max-tokens 320`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.texts.register(fs)
	f.cache.Register(fs)
	fs.Float64Var(&f.bits, "bits", 0, "bits a value to spend, scales and zero points included")
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	cli.RegisterJSON(fs, &f.json)
	return c
}

// layerBitsJSON is what layerbits prints with --json.
type layerBitsJSON struct {
	Model     string  `json:"model"`
	Device    string  `json:"device"`
	LayerBits string  `json:"layer_bits"`
	Before    harmOf  `json:"before"`
	After     harmOf  `json:"after"`
	Budget    float64 `json:"bits_budget"`
}

type harmOf struct {
	Bits float64 `json:"bits_per_value"`
	KL   float64 `json:"kl_mean"`
}

func (f *layerBitsFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	if !(f.bits > 0) {
		return usererr.New("--bits %g: want the bits a value to spend, such as 2.5", f.bits)
	}
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	base, err := f.cache.Config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return err
	}
	texts, err := f.texts.read(c.InOrStdin(), tok, files.Config())
	if err != nil {
		return err
	}
	status := f.model.Status(errs)
	defer status.Close()
	model, err := f.model.Load(ctx, files, errs)
	if err != nil {
		return err
	}
	defer model.Close(ctx)
	spent, err := evaluate.Spend(status.Context(ctx), model.Model, texts, base, f.bits, evaluate.Options{Prefill: f.texts.prefill,
		Progress: func(done, total int) error { status.Detail("%d of %d caches", done, total); return nil }})
	if err != nil {
		return err
	}
	out := layerBitsJSON{Model: files.Path(), Device: model.Device, LayerBits: spent.Config.LayerBits, Budget: f.bits,
		Before: harmOf{spent.Before.Bits, spent.Before.KL}, After: harmOf{spent.After.Bits, spent.After.KL}}
	status.Close()
	return f.print(c.OutOrStdout(), out)
}

func (f *layerBitsFlags) print(w io.Writer, out layerBitsJSON) error {
	if f.json {
		return cli.PrintJSON(w, out)
	}
	_, err := fmt.Fprintf(w, "KL divergence %.5f with %.4g bits a value, %.5f with %.4g\ntake it with: --layer-bits %s\n",
		out.Before.KL, out.Before.Bits, out.After.KL, out.After.Bits, out.LayerBits)
	return err
}
