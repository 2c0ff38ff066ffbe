package benchcmd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/bench"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// decodeFlags are those of bench decode.
type decodeFlags struct {
	commonFlags
	model   cli.ModelFlags
	random  string
	devices []int
	files   *llama.Files // nil for a random model
}

func newDecode() *cobra.Command {
	var f decodeFlags
	c := &cobra.Command{
		Use:   "decode",
		Short: "A token of the whole model",
		Long: `decode times the decode loop of a whole model. The cache has made-up contents, so that a long context costs no time to read; --random
takes a model's shape with random weights made on the device. With several numbers in --devices the model is sharded over so many
devices, and each is compared with the first.`,
		Example: `  kvq bench decode --tokens 512 --batches 1 --runs 3 --steps 16
  kvq bench decode --random llama2-7b --backend xla:cuda --devices 1,2 --tokens 4096 --batches 1`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.register(fs, []int{512, 2048, 8192}, []int{1, 8}, 32)
	registerRandom(fs, &f.random)
	fs.IntSliceVar(&f.devices, "devices", []int{1}, "numbers of devices to shard the model over")
	fs.BoolVar(&f.slowest, "slowest", false, "time the steps one by one as well: the slowest is one that turns a window's tokens into codes")
	fs.BoolVar(&f.own, "uneven", false, "rows have lengths of their own, as in kvq serve; each holds one token less than the row before")
	cli.UnderModel(fs, "devices")
	cli.UnderMore(fs, "slowest", "uneven")
	return c
}

// decodePair is a model on some number of devices, with both caches.
type decodePair struct {
	model           *llama.Model
	quantized, full *llama.Generator
}

// newPair makes the generators; its close frees what there is after an error too.
func newPair(model *llama.Model, config kvq.Config) (m *decodePair, err error) {
	m = &decodePair{model: model}
	if m.full, err = llama.NewGenerator(model, kvq.Config{}); err == nil {
		m.quantized, err = llama.NewGenerator(model, config)
	}
	return m, err
}

func (m *decodePair) close() {
	for _, g := range []*llama.Generator{m.quantized, m.full} {
		if g != nil {
			g.Finalize()
		}
	}
	m.model.Finalize()
}

func (f *decodeFlags) run(c *cobra.Command) error {
	ctx := c.Context()
	config, err := f.parse(c.Flags())
	if err != nil {
		return err
	}
	load, shape, err := f.loader(c)
	if err != nil {
		return err
	}
	for _, n := range f.devices {
		if err := cli.CheckShares(shape, n); err != nil {
			return err
		}
	}
	f.status = f.model.Status(c.ErrOrStderr())
	defer f.status.Close()
	f.status.Stage("opening the device")
	backend, info, err := cli.OpenDevice(f.model.Backend)
	f.status.Clear()
	if err != nil {
		return err
	}
	defer backend.Finalize()
	for _, n := range f.devices {
		if err := cli.CheckCount(info, n); err != nil {
			return err
		}
	}
	config = f.fit(c, config, shape)
	if err := f.checkFit(backend, info, shape, config); err != nil {
		return err
	}
	var models []*decodePair
	defer func() {
		for _, m := range slices.Backward(models) {
			m.close()
		}
	}()
	for _, n := range f.devices {
		model, err := load(backend, info, n)
		if err != nil {
			return err
		}
		cli.NoteForm(c.ErrOrStderr(), model, config)
		m, err := newPair(model, config)
		models = append(models, m)
		if err != nil {
			return err
		}
	}
	report := newRatioReport(c, &f.commonFlags, info, config)
	for _, batch := range f.batches {
		for _, tokens := range f.tokens {
			if err := f.row(ctx, report, models, batch, tokens); err != nil {
				return err
			}
		}
	}
	return report.outcome.Print(func() error { return report.print(c.OutOrStdout(), &f.commonFlags) })
}

// checkFit refuses what does not fit. The models for all numbers of devices are there at the same
// time, the caches one after the other.
func (f *decodeFlags) checkFit(backend compute.Backend, info device.Info, shape llama.Config, config kvq.Config) error {
	dtype, _ := f.model.ParseDType() // checked by loader
	if dtype == dtypes.InvalidDType && f.random != "" {
		dtype = dtypeOn(info)
	}
	request := func(cache kvq.Config, batch, tokens int) fit.Request {
		return fit.Request{Model: shape, DType: dtype, Cache: cache, Batch: batch, Prompt: 1, Capacity: tokens + f.steps}
	}
	for _, batch := range f.batches {
		for _, tokens := range f.tokens {
			for _, cache := range []kvq.Config{{}, config} {
				for _, n := range f.devices {
					one := f.model
					one.Devices = n
					r := request(cache, batch, tokens)
					if f.files != nil {
						var err error
						if r.Packed, err = one.Packs(f.files, info.GPU(), n); err != nil {
							return err
						}
					}
					if err := one.CheckFit(backend, info, r); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// loader returns what makes the model on n devices, and the model's configuration.
func (f *decodeFlags) loader(c *cobra.Command) (func(compute.Backend, device.Info, int) (*llama.Model, error), llama.Config, error) {
	if f.random == "" {
		f.model.Devices = 1 // those wanted are checked later
		files, err := f.model.Open(c)
		if err != nil {
			return nil, llama.Config{}, err
		}
		f.files = files
		return func(backend compute.Backend, info device.Info, n int) (*llama.Model, error) {
			return f.model.LoadOn(c.Context(), backend, info, n, files, c.ErrOrStderr())
		}, files.Config(), nil
	}
	shape, err := randomModel(f.random)
	if err != nil {
		return nil, shape, err
	}
	dtype, err := f.model.ParseDType()
	return func(backend compute.Backend, info device.Info, n int) (*llama.Model, error) {
		f.status.Stage("making random weights")
		defer f.status.Clear()
		return newRandomModel(backend, info, shape, dtype, n)
	}, shape, err
}

// row times both caches of all models in alternation.
func (f *decodeFlags) row(ctx context.Context, report *ratioReport, models []*decodePair, batch, tokens int) error {
	what := "decode"
	if f.own {
		what += " uneven"
	}
	if f.random != "" {
		what += " " + f.random
	}
	return f.decodeRows(ctx, report, what, models, batch, tokens)
}

// decodeRows adds a row for each model.
func (f *commonFlags) decodeRows(ctx context.Context, report *ratioReport, what string, models []*decodePair, batch, tokens int) error {
	var timers []engine.DecodeTimer
	var runs []bench.Run
	for _, m := range models {
		for _, g := range []*llama.Generator{m.quantized, m.full} {
			t, err := engine.NewDecodeTimer(f.status.Context(ctx), g, batch, tokens, f.steps, f.own)
			if err != nil {
				return err
			}
			defer t.Finalize()
			timers, runs = append(timers, t), append(runs, t.Run)
		}
	}
	times, err := watched(ctx, f.status, fmt.Sprintf("%s with %d tokens, batch %d", what, tokens, batch), f.runs, runs...)
	if err != nil {
		return err
	}
	for i, m := range models {
		own, timer := times[2*i:2*i+2], timers[2*i:2*i+2]
		row := newRatioRow(what, batch, tokens, own, timer[0].Memory().Total(), timer[1].Memory().Total())
		row.Compile, row.FullCompile = timer[0].Compile().Seconds(), timer[1].Compile().Seconds()
		row.Devices = m.model.Devices()
		if f.slowest {
			if row.Slowest, row.Usual, err = f.oneByOne(ctx, timer[0]); err != nil {
				return err
			}
		}
		if i > 0 {
			row.Scaling = &scaling{Quantized: own[0].Faster(times[0]), Full: own[1].Faster(times[1])}
		}
		if err := report.add(row); err != nil {
			return err
		}
	}
	return nil
}

// oneByOne times steps one by one, and of each the shortest of all runs: milliseconds of the
// slowest step, and of the one in the middle.
func (f *commonFlags) oneByOne(ctx context.Context, timer engine.DecodeTimer) (slowest, usual float64, err error) {
	var steps bench.Times
	for run := range f.runs + 1 {
		f.status.Stage("timing steps one by one, run %d of %d", run+1, f.runs+1)
		times, err := timer.Each(ctx)
		if err != nil {
			return 0, 0, err
		}
		switch run {
		case 0: // not counted
		case 1:
			steps = times
		default:
			for i, t := range times {
				steps[i] = min(steps[i], t)
			}
		}
	}
	ms := func(t time.Duration) float64 { return float64(t) / float64(time.Millisecond) }
	return ms(slices.Max(steps)), ms(steps.Median()), nil
}
