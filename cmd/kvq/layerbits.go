package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/evaluate"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newLayerBits) }

// layerBitsFlags are those of layerbits.
type layerBitsFlags struct {
	model        cli.ModelFlags
	cache        cli.CacheFlags
	texts        textFiles
	bits         float64
	kinds        int
	harms, write string
	json         bool
}

func newLayerBits() *cobra.Command {
	var f layerBitsFlags
	c := &cobra.Command{
		Use:   "layerbits",
		Short: "Spread bits over a model's layers, to where they help most",
		Long: `layerbits lets the model read texts through caches in which one layer's keys, or its values, are codes of the bits that the
flags ask for, or of the next two widths, and all else is exact. Then it gives single layers more bits, where that lowers the KL
divergence most, up to --bits a value on average. It prints the --layer-bits to take, and the divergence before and after.

Texts are read at once, a layer after the other: for the small model and four texts of 320 tokens some ten minutes on two processors.
--harms keeps what was measured after each layer: a search that was interrupted goes on there, and other --bits of the same cache need
no further search. Take texts of several kinds, and others to confirm what is found; 320 tokens of each are enough. Begin with few
bits: none is taken away. With --nbits-key 1 --nbits-value 1 layers that hardly matter pay for others. A preset whose bits were spread
over the layers of this model already (kvq presets marks them) wants --layer-bits "" to begin anew.`,
		Example: `  kvq layerbits --preset lowest --layer-bits "" --bits 2.8 --text mine.txt --text other.txt --max-tokens 320
  kvq layerbits --preset lowest --layer-bits "" --bits 2.8 --text mine.txt --harms harms.json --write mine.json
  kvq generate "Once upon a time" --preset mine.json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.texts.register(fs)
	f.cache.Register(fs)
	fs.Float64Var(&f.bits, "bits", 0, "`bits` a value to spend on average, scales and zero points included")
	fs.IntVar(&f.kinds, "kinds", 3, "how many different layers there may be: each is compiled for itself (0: any number)")
	fs.StringVar(&f.harms, "harms", "", "`file` that keeps what codes of single layers cost; what it has is not measured again")
	fs.StringVar(&f.write, "write", "", "`file` for the cache that was found, as --preset takes it (.json)")
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	cli.RegisterJSON(fs, &f.json)
	cli.UnderMore(fs, "harms", "kinds", "write")
	return c
}

// layerBitsJSON is what layerbits prints with --json.
type layerBitsJSON struct {
	Model     string     `json:"model"`
	Device    string     `json:"device"`
	LayerBits string     `json:"layer_bits"`
	Config    kvq.Config `json:"config"` // of the cache that was found
	Before    harmOf     `json:"before"`
	After     harmOf     `json:"after"`
	Budget    float64    `json:"bits_budget"`
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
	if f.kinds < 0 {
		return usererr.New("--kinds %d: want 1 or more, or 0 for any number", f.kinds)
	}
	if f.write != "" && !cli.IsPresetFile(f.write) {
		return usererr.New("--write %s: want a name that ends in .json, as --preset tells files from names", f.write)
	}
	for flag, path := range map[string]string{"write": f.write, "harms": f.harms} {
		if path == "" {
			continue
		}
		if err := filesys.CanWrite(path); err != nil {
			return usererr.New("--%s %w", flag, err)
		}
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
	kept, err := f.known(files, texts, base)
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
	spent, err := f.spend(status.Context(ctx), model.Model, texts, base, kept, func(done, total int) error {
		status.Detail("%d of %d caches", done, total)
		return nil
	})
	status.Close()
	if err != nil {
		if ctx.Err() != nil && f.harms != "" && kept.Harms != nil {
			fmt.Fprintf(errs, "--harms %s has %d of %d layers: the same line goes on there\n", f.harms, len(kept.Harms.Keys), files.Config().Layers)
		}
		return err
	}
	out := layerBitsJSON{Model: files.Path(), Device: model.Device, LayerBits: spent.Config.LayerBits, Config: spent.Config, Budget: f.bits,
		Before: harmOf{spent.Before.Bits, spent.Before.KL}, After: harmOf{spent.After.Bits, spent.After.KL}}
	if f.write != "" {
		if err := keepJSON(f.write, spent.Config); err != nil {
			return usererr.New("--write: %w", err)
		}
	}
	return f.print(c.OutOrStdout(), out)
}

func (f *layerBitsFlags) spend(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, base kvq.Config, kept *harmsFile, progress func(done, total int) error) (evaluate.Spent, error) {
	o := evaluate.HarmOptions{Prefill: f.texts.prefill, Progress: progress}
	if kept.Harms != nil {
		o.Known = kept.Harms
	}
	o.Seen = func(h *evaluate.Harms) error {
		kept.Harms = h
		if f.harms == "" {
			return nil
		}
		return keepJSON(f.harms, kept)
	}
	return evaluate.Spend(ctx, model, texts, base, f.bits, f.kinds, o)
}

// harmsFile is what --harms keeps.
type harmsFile struct {
	Model   string          // llama.Files.Identity
	Texts   string          // a hash of their tokens
	Prefill int             // tokens of each text that go in at once
	Harms   *evaluate.Harms // of as many layers as were measured
}

// known is what --harms has for this search, or the beginning of it.
func (f *layerBitsFlags) known(files *llama.Files, texts [][]tokenizer.Token, base kvq.Config) (*harmsFile, error) {
	if f.harms == "" {
		return &harmsFile{}, nil
	}
	identity, err := files.Identity()
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	for _, text := range texts {
		_ = binary.Write(hash, binary.LittleEndian, int64(len(text)))
		_ = binary.Write(hash, binary.LittleEndian, text)
	}
	want := harmsFile{Model: identity, Texts: fmt.Sprintf("%x", hash.Sum(nil)), Prefill: f.texts.prefill}
	text, err := filesys.Read(f.harms)
	if errors.Is(err, fs.ErrNotExist) {
		return &want, nil
	}
	if err != nil {
		return nil, usererr.New("--harms: %w", err)
	}
	var has harmsFile
	if err := json.Unmarshal(text, &has); err != nil || has.Harms == nil {
		return nil, usererr.New("--harms %s is not what kvq layerbits wrote: take another name", f.harms)
	}
	for _, differs := range []struct {
		what string
		is   bool
	}{{"model", has.Model != want.Model}, {"set of texts", has.Texts != want.Texts}, {"--prefill", has.Prefill != want.Prefill}, {"cache", has.Harms.Base != base}} {
		if differs.is {
			return nil, usererr.New("--harms %s is of another %s: take another name", f.harms, differs.what)
		}
	}
	if !has.Harms.Complete() {
		return nil, usererr.New("--harms %s is damaged: take another name", f.harms)
	}
	return &has, nil
}

// keepJSON writes a file whole.
func keepJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return filesys.Write(path, append(text, '\n'))
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
		"take it with %s\n", out.Before.KL, out.Before.Bits, out.After.KL, out.After.Bits, f.take(out.LayerBits))
	return err
}

// take says how another command takes what was found.
func (f *layerBitsFlags) take(layerBits string) string {
	if f.write != "" {
		return "--preset " + f.write
	}
	return "the same flags and --layer-bits " + layerBits
}
