package benchcmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// attentionShapes are heads, key/value heads and head dimension of known models.
var attentionShapes = map[string]bench.AttentionShape{
	"smollm2":   {Heads: 9, KVHeads: 3, HeadDim: 64},
	"llama2-7b": {Heads: 32, KVHeads: 32, HeadDim: 128},
	"llama3-8b": {Heads: 32, KVHeads: 8, HeadDim: 128},
	// head dimensions that are no power of two
	"stablelm-3b":   {Heads: 32, KVHeads: 32, HeadDim: 80},
	"phi3-mini":     {Heads: 32, KVHeads: 32, HeadDim: 96},
	"openllama-3b":  {Heads: 32, KVHeads: 32, HeadDim: 100},
	"stablelm2-12b": {Heads: 32, KVHeads: 8, HeadDim: 160},
}

// attentionShape is a shape by its name, or by its numbers: heads/key-value heads/head dimension.
func attentionShape(name string) (bench.AttentionShape, error) {
	if shape, ok := attentionShapes[name]; ok {
		return shape, nil
	}
	var shape bench.AttentionShape
	var rest string
	n, _ := fmt.Sscanf(name+" .", "%d/%d/%d %s", &shape.Heads, &shape.KVHeads, &shape.HeadDim, &rest)
	if n != 4 || rest != "." || min(shape.Heads, shape.KVHeads, shape.HeadDim) < 1 || shape.Heads%shape.KVHeads != 0 {
		return shape, usererr.New("--shape %q, want %s, or numbers such as 32/8/112: heads/key-value heads/head dimension",
			name, usererr.OneOf(slices.Sorted(maps.Keys(attentionShapes))))
	}
	return shape, nil
}

func newAttention() *cobra.Command {
	var f commonFlags
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
	cli.RegisterQuiet(fs, &o.quiet)
	f.register(fs, []int{1024, 4096, 16384, 32768}, []int{1}, 20)
	fs.StringSliceVar(&models, "shape", []string{"smollm2", "llama2-7b"}, "`shape` of attention: "+strings.Join(slices.Sorted(maps.Keys(attentionShapes)), ", ")+"; or heads/key-value heads/head dimension, such as 32/8/112")
	cli.OfferWords(fs, "shape", slices.Sorted(maps.Keys(attentionShapes)))
	fs.IntVar(&o.layers, "layers", 0, "layers that a step goes through (0: one; on a GPU enough for 256 MB of full precision, 4 to 12)")
	fs.BoolVar(&o.graphForm, "graph-form", false, "time the quantized cache with graph operations alone too, where it has a kernel otherwise")
	cli.UnderMore(fs, "layers", "graph-form")
	return c
}

// attentionFlags are those of attention alone.
type attentionFlags struct {
	quiet     bool
	layers    int
	graphForm bool
}

// layersFor is how many layers a step goes through. A GPU's own cache holds tens of MB. A single
// layer would be read from there, which the layers of a model are not. Work that a step does once
// is shared by all layers, as in a model.
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

func (f *commonFlags) attention(c *cobra.Command, backendName string, models []string, o attentionFlags) error {
	ctx := c.Context()
	config, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	if o.layers < 0 {
		return usererr.New("--layers %d, want 0 or more", o.layers)
	}
	for _, name := range models {
		if _, err := attentionShape(name); err != nil {
			return err
		}
	}
	f.status = cli.NewStatus(c.ErrOrStderr(), o.quiet)
	defer f.status.Close()
	f.status.Stage("opening the device")
	backend, info, err := cli.OpenDevice(backendName)
	if err != nil {
		return err
	}
	defer backend.Finalize()
	report := newRatioReport(c, f, info, config)
	size := 1 << 28
	if info.GPU() {
		size = 1 << 32
	}
	f.status.Stage("measuring the memory's bandwidth")
	if report.Bandwidth, err = bench.Bandwidth(ctx, backend, size, 3); err != nil {
		return err
	}
	for _, name := range models {
		shape, _ := attentionShape(name) // checked above
		config := f.fit(c, config, llama.Config{HeadDim: shape.HeadDim})
		if config.String() != report.Cache {
			name = fmt.Sprintf("%s, %s", name, config)
		}
		for _, batch := range f.batches {
			for _, tokens := range f.tokens {
				shape.Batch, shape.DType = batch, dtypeOn(info)
				shape.Layers = o.layersFor(info, shape, tokens)
				if err := f.attentionRow(ctx, backend, report, config, name, shape, tokens, o.graphForm); err != nil {
					return err
				}
			}
		}
	}
	return report.outcome.Print(func() error { return report.print(c.OutOrStdout(), f) })
}

func (f *commonFlags) attentionRow(ctx context.Context, backend compute.Backend, report *ratioReport, config kvq.Config, name string,
	shape bench.AttentionShape, tokens int, graphForm bool) error {
	what := fmt.Sprintf("%d tokens, batch %d", tokens, shape.Batch)
	f.status.Stage("compiling attention %s for %s", name, what)
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
	times, err := watched(ctx, f.status, what, f.runs, runs...)
	if err != nil {
		return err
	}
	row := newRatioRow(fmt.Sprintf("attention %s", name), shape.Batch, tokens, times, quantized.Bytes(), full.Bytes())
	row.Layers = shape.Layers
	if graphForm {
		row.GraphForm = float64(times[2].Min()) / float64(time.Millisecond)
	}
	row.Bandwidth = float64(quantized.Read()) / times[0].Min().Seconds() / report.Bandwidth
	return report.add(row)
}
