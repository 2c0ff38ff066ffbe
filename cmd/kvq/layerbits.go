package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
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
		Long: `layerbits lets the model read texts through caches in which one layer's keys, or its values, have the bits that the flags
ask for, and all others 8. Then it gives single layers more bits, where that lowers the KL divergence most, up to --bits a value on
average. It prints the --layer-bits to take, and the divergence before and after.

A cache is compiled and read for each layer's keys and for its values: minutes to an hour. Take texts of several kinds; 320 tokens of
each are enough. Begin with few bits: none is taken away. A preset whose bits were spread over the layers of this model already
(kvq presets marks them) wants --layer-bits "" to begin anew.`,
		Example: `  kvq layerbits --preset lowest --layer-bits "" --bits 2.8 --text mine.txt --text other.txt --max-tokens 320`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.texts.register(fs)
	f.cache.Register(fs)
	fs.Float64Var(&f.bits, "bits", 0, "`bits` a value to spend on average, scales and zero points included")
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
	if err := f.check(base, files.Config()); err != nil {
		return err
	}
	texts, err := f.texts.read(c.InOrStdin(), files)
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

// check refuses, before weights are loaded, what has no bits to spread.
func (f *layerBitsFlags) check(base kvq.Config, model llama.Config) error {
	switch {
	case !base.Quantized():
		return usererr.New("full precision was asked for: it has no bits to spread over layers, want a quantized cache")
	case llama.IsTuned(f.cache.Preset(), model) && base.LayerBits != "":
		return usererr.New("--preset %s: its bits were spread over the layers of this model already: add --layer-bits \"\" to spread them anew", f.cache.Preset())
	case base.LayerBits != "":
		return usererr.New("--layer-bits %s: want a cache whose layers are alike, to give them bits of their own", base.LayerBits)
	}
	for flag, q := range map[string]kvq.Quantizer{"code-key": base.QuantizerKey, "code-value": base.QuantizerValue} {
		if q == kvq.Int8 || q == kvq.Float8 {
			return usererr.New("--%s %s: such codes have 8 bits in every layer, want codes whose bits can be chosen", flag, q)
		}
	}
	bits, err := cli.BitsOf(base, model, f.model.DTypeOn(f.model.GPUAhead()))
	if err != nil {
		return err
	}
	if f.bits < bits.Here {
		return usererr.New("--bits %g: want at least the %.4g that a value takes while all layers are alike", f.bits, bits.Here)
	}
	return nil
}

func (f *layerBitsFlags) print(w io.Writer, out layerBitsJSON) error {
	if f.json {
		return cli.PrintJSON(w, out)
	}
	if out.LayerBits == "" {
		_, err := fmt.Fprintf(w, "KL divergence %.5f with %.4g bits a value; %g are too few for more bits in any layer\n", out.Before.KL, out.Before.Bits, out.Budget)
		return err
	}
	_, err := fmt.Fprintf(w, "KL divergence %.5f with %.4g bits a value in every layer, %.5f with %.4g as they are spread now\n"+
		"take it with the same flags and --layer-bits %s\n", out.Before.KL, out.Before.Bits, out.After.KL, out.After.Bits, out.LayerBits)
	return err
}
