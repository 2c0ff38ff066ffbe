package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

func init() { register(newMemory) }

// measureBelow is the size up to which a cache is allocated to measure it, unless --measure says
// otherwise: small enough for any machine.
const measureBelow = 256 << 20

// memoryFlags are those of memory.
type memoryFlags struct {
	model          cli.ModelFlags
	cache          cli.CacheFlags
	batch, context int
	measure        bool
	json           bool
}

func newMemory() *cobra.Command {
	var f memoryFlags
	c := &cobra.Command{
		Use:   "memory",
		Short: "Bytes of the cache by part, predicted and measured, and what fits",
		Long: `memory says what the key/value cache of a model takes, by part: predicted from its configuration, and measured by allocating
one (without being told, if it takes at most 256 MiB). Then whether weights, cache and work fit the device, or --max-memory: work is what a
computation needs in passing when the whole context comes as one prompt. Below, what other configurations would take, and the longest
context and the most rows that fit with them. Of the model only headers are read, no weights are loaded. --measure also compiles the model
and prints what XLA says its graphs need.

With --devices N every number is that of one of N devices, which share the model by key/value heads.`,
		Example: `  kvq memory --context 4096
  kvq memory --batch 8 --context 8192 --preset balanced --max-memory 2GiB
  kvq memory --context 1024 --cache full --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	fs.IntVar(&f.batch, "batch", 1, "rows")
	fs.IntVar(&f.context, "context", 0, "tokens of each row (0: as many as the model reads)")
	fs.BoolVar(&f.measure, "measure", false, "allocate the cache and measure it, whatever its size (--measure=false: never)")
	cli.RegisterJSON(fs, &f.json)
	return c
}

func (f *memoryFlags) run(c *cobra.Command) error {
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	config, err := f.cache.Config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	j, err := f.predict(files, config)
	if err != nil {
		return err
	}
	f.cache.NoteGroups(c.ErrOrStderr(), c.Flags(), config, files.Config())
	outcome := cli.OutcomeOf(c.Context())
	status := f.model.Status(c.ErrOrStderr())
	defer status.Close()
	finish := func() error {
		status.Close()
		if f.json {
			return cli.PrintJSON(c.OutOrStdout(), j)
		}
		return j.print(c.OutOrStdout(), files.Config().Share(f.model.Devices))
	}
	outcome.OnInterrupt(func() { _ = finish() })
	forced := c.Flags().Changed("measure")
	if f.measure || !forced {
		err := f.ask(c.Context(), j, outcome, files, config, forced)
		status.Clear()
		if err != nil {
			if forced {
				return err
			}
			// Nobody asked for a device: where there is none, the prediction will do.
			fmt.Fprintf(c.ErrOrStderr(), "kvq: warning: not measured: %s\n", oneLine(err))
		}
	}
	if err := outcome.Print(finish); err != nil {
		return err
	}
	return c.Context().Err()
}

// memoryJSON is what memory prints with --json.
type memoryJSON struct {
	Model string `json:"model"`
	DType string `json:"dtype"`
	// all bytes but stored_bytes are those of one of them
	Devices  int           `json:"devices"`
	Batch    int           `json:"batch"`
	Context  int           `json:"context"`
	Weights  weightsJSON   `json:"weights"`
	Cache    cacheJSON     `json:"cache"`    // predicted
	Measured *measuredJSON `json:"measured"` // null if it was not
	Needs    fit.Needs     `json:"needs"`    // with the whole context as a prompt
	Compiled *fit.Compiled `json:"compiled"` // XLA's own figures; null without --measure
	// what there is for weights, cache and work; null where it is not known
	Room           *cli.Room        `json:"room"`
	Fits           *bool            `json:"fits"` // null where it is not known
	Configurations []configuredJSON `json:"configurations"`

	dtype   dtypes.DType
	plan    *kvq.Plan
	request fit.Request
	widened bool
	asked   kvq.Config
}

type weightsJSON struct {
	Parameters int64 `json:"parameters"`
	Bytes      int64 `json:"bytes"` // on the device
	Stored     int64 `json:"stored_bytes"`
	Packed     bool  `json:"packed"` // as the file has them, not as numbers of dtype
}

type measuredJSON struct {
	Device string     `json:"device"`
	Bytes  int64      `json:"bytes"`
	Parts  kvq.Memory `json:"parts"`
}

// predict computes all sizes, from headers alone.
func (f *memoryFlags) predict(files *llama.Files, config kvq.Config) (*memoryJSON, error) {
	model := files.Config().Share(f.model.Devices)
	if f.batch < 1 {
		return nil, usererr.New("--batch %d, want at least 1", f.batch)
	}
	if f.batch > math.MaxInt32 {
		return nil, usererr.New("--batch %d, want at most %d", f.batch, math.MaxInt32)
	}
	if f.context < 0 || f.context > model.MaxPositions {
		return nil, usererr.New("--context %d, want 1 to %d, the most that the model reads", f.context, model.MaxPositions)
	}
	gpu := f.model.GPUAhead()
	j := &memoryJSON{Model: files.Path(), Devices: f.model.Devices, Batch: f.batch, Context: f.context, dtype: f.model.DTypeOn(gpu)}
	if j.Context == 0 {
		j.Context = model.MaxPositions
	}
	parameters := model.ParameterCount()
	j.DType = strings.ToLower(j.dtype.String())
	plan, err := cli.PlanFor(config, model, f.batch, j.Context, j.dtype)
	if err != nil {
		return nil, err
	}
	full, err := cli.PlanFor(kvq.Config{}, model, f.batch, j.Context, j.dtype)
	if err != nil {
		return nil, err
	}
	bits := plan.BitsPerValue()
	j.plan = plan
	j.Cache = cacheJSON{Config: config.String(), Bytes: plan.Memory().Total(), FullBytes: full.Memory().Total(), Parts: plan.Memory(), BitsPerValue: &bits}
	j.asked, j.widened = config, !gpu
	j.request = fit.Request{Model: files.Config(), DType: j.dtype, Cache: config, Batch: f.batch, Prompt: j.Context, Capacity: j.Context, Devices: f.model.Devices}
	if j.request.Packed, err = f.model.Packs(files, gpu, f.model.Devices); err != nil {
		return nil, err
	}
	if j.Needs, err = j.request.Needs(j.widened); err != nil {
		return nil, err
	}
	j.Weights = weightsJSON{parameters, j.Needs.Weights, files.StoredBytes(), j.request.Packed}
	if limit, _ := f.model.ParseMaxMemory(); limit > 0 { // checked by open
		j.Room = &cli.Room{Bytes: limit, Source: "--max-memory"}
	}
	j.configure()
	return j, nil
}

// ask opens the device, for its memory and to measure the cache if it is small or if forced, which
// also compiles the model.
func (f *memoryFlags) ask(ctx context.Context, j *memoryJSON, outcome *cli.Outcome, files *llama.Files, config kvq.Config, forced bool) error {
	status := f.model.Status(os.Stderr)
	status.Stage("opening the device")
	backend, info, err := cli.OpenDevice(f.model.Backend)
	status.Clear()
	if err != nil {
		return err
	}
	defer backend.Finalize()
	cli.NoteNotKept(os.Stderr)
	room := j.Room
	if room == nil {
		there, err := f.model.Room(backend, files.Config().Layers)
		if err != nil {
			return err
		}
		if there.Bytes > 0 {
			room = &there
		}
	}
	if err := outcome.Update(func() error { return j.on(backend, room) }); err != nil {
		return err
	}
	if !forced && j.Cache.Bytes > measureBelow {
		return nil
	}
	status.Stage("allocating the cache")
	measured, err := f.measured(backend, info, files, config, j.dtype)
	if err != nil {
		return err
	}
	_ = outcome.Update(func() error { j.Measured = measured; return nil })
	if !forced || ctx.Err() != nil {
		return nil
	}
	if err := cli.CheckCount(info, f.model.Devices); err != nil {
		return err
	}
	status.Stage("compiling for a prompt of %d tokens and a step, %d rows", j.Context, f.batch)
	compiled, err := j.request.Compile(ctx, backend)
	if err != nil {
		return err
	}
	return outcome.Update(func() error { j.Compiled = &compiled; return nil })
}

// on predicts anew, for a device that is open and has room (nil: not known).
func (j *memoryJSON) on(backend compute.Backend, room *cli.Room) (err error) {
	j.request.Backend, j.Room = backend, room
	if j.Needs, err = j.request.Needs(j.widened); err != nil {
		return err
	}
	j.configure()
	return nil
}

// measured allocates an empty cache on the device, as a generation does, and counts its bytes.
func (f *memoryFlags) measured(backend compute.Backend, info device.Info, files *llama.Files, config kvq.Config, dtype dtypes.DType) (*measuredJSON, error) {
	plan, err := cli.PlanFor(config, files.Config().Share(f.model.Devices), f.batch, f.contextOf(files), dtype)
	if err != nil {
		return nil, err
	}
	exec, err := graph.NewExec(backend, func(start *graph.Node) []*graph.Node { return plan.Init(start).Nodes() })
	if err != nil {
		return nil, fmt.Errorf("allocating the cache: %w", err)
	}
	defer exec.Finalize()
	state, err := exec.Call(make([]int32, f.batch))
	if err != nil {
		return nil, fmt.Errorf("allocating the cache: %w", err)
	}
	defer func() {
		for _, t := range state {
			_ = t.FinalizeAll() // only fails when it is gone already
		}
	}()
	memory, err := kvq.Measure[*tensors.Tensor](plan, state)
	if err != nil {
		return nil, err
	}
	return &measuredJSON{Device: info.Name, Bytes: memory.Total(), Parts: memory}, nil
}

func (f *memoryFlags) contextOf(files *llama.Files) int {
	if f.context == 0 {
		return files.Config().MaxPositions
	}
	return f.context
}

func (j *memoryJSON) print(w io.Writer, model llama.Config) error {
	if j.Devices > 1 {
		fmt.Fprintf(w, "on each of %d devices:\n", j.Devices)
	}
	form := j.DType
	if j.Weights.Packed {
		form = "the file packs them"
	}
	fmt.Fprintf(w, "weights: %s parameters, %s as %s\n", humanize.Comma(j.Weights.Parameters), cli.ByteCount(j.Weights.Bytes), form)
	fmt.Fprintf(w, "cache:   %s, batch %d, context %d\n", j.Cache.Config, j.Batch, j.Context)
	for _, line := range formula(j.plan, model) {
		fmt.Fprintf(w, "         %s\n", line)
	}
	fmt.Fprintln(w)
	t := cli.NewTable(w, table.Row{"bytes of the cache", "predicted", "measured"})
	measured := func(i int) string {
		if j.Measured == nil {
			return "-"
		}
		return humanize.Comma(parts(j.Measured.Parts)[i].bytes)
	}
	for i, p := range parts(j.Cache.Parts) {
		if p.bytes > 0 || j.Measured != nil && parts(j.Measured.Parts)[i].bytes > 0 {
			t.AppendRow(table.Row{p.name, cli.ByteCount(p.bytes), measured(i)})
		}
	}
	all := "-"
	if j.Measured != nil {
		all = humanize.Comma(j.Measured.Bytes)
	}
	t.AppendSeparator()
	t.AppendRow(table.Row{"all", cli.ByteCount(j.Cache.Bytes), all})
	t.Render()
	fmt.Fprintln(w)

	j.printFit(w)
	j.printConfigurations(w, model.MaxPositions)
	return nil
}

// formula explains the sizes of a plan in its own numbers.
func formula(plan *kvq.Plan, model llama.Config) []string {
	s, m := plan.Shape(), plan.Memory()
	perToken := 2 * model.Layers * model.KVHeads * model.HeadDim
	lines := []string{fmt.Sprintf("values of a token = 2 (key, value) x %d layers x %d KV heads x head dim %d = %s",
		model.Layers, model.KVHeads, model.HeadDim, humanize.Comma(int64(perToken)))}
	perValue := int64(s.Batch) * int64(perToken)
	size := int64(s.DType.Size())
	if !plan.Config().Quantized() {
		return append(lines, fmt.Sprintf("bytes = batch %d x %d tokens x values of a token x %d bytes = %s",
			s.Batch, s.Capacity, size, humanize.Comma(m.Full)))
	}
	coded := m.Codes + m.Scales + m.Zeros
	bits := plan.BitsPerValue()
	tokens := int64(math.Round(8 * float64(coded) / bits / float64(perValue)))
	token := ""
	if plan.Config().TokenScales {
		token = fmt.Sprintf(", + 8 / %d of a key for its token's scale", model.HeadDim)
	}
	return append(lines,
		"bits of a coded value = bits of its code + (bits of scale + bits of zero point) / values that share them"+token,
		fmt.Sprintf("coded = batch %d x %d tokens x values of a token x %.4g bits / 8 = %s", s.Batch, tokens, bits, humanize.Comma(coded)),
		fmt.Sprintf("exact = batch %d x %d tokens (window and sinks) x values of a token x %d bytes = %s",
			s.Batch, exactTokens(plan), size, humanize.Comma(m.Window+m.Sinks)))
}

// exactTokens is how many tokens of a row a plan has room for outside of its codes.
func exactTokens(plan *kvq.Plan) int {
	s, m := plan.Shape(), plan.Memory()
	token := int64(s.DType.Size()) * int64(s.Batch) * int64(2*s.Layers*s.KVHeads*s.HeadDim)
	return int((m.Window + m.Sinks) / token)
}
