package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

func init() { register(newMemory) }

// measureBelow is the size up to which a cache is allocated to measure it, unless --measure says otherwise: small
// enough for any machine.
const measureBelow = 256 << 20

// memoryFlags are those of memory.
type memoryFlags struct {
	model          modelFlags
	cache          cacheFlags
	batch, context int
	measure        bool
	maxMemory      string
	json           bool
}

func newMemory() *cobra.Command {
	var f memoryFlags
	c := &cobra.Command{
		Use:   "memory",
		Short: "Bytes of the cache by part, predicted and measured, and what fits",
		Long: `memory says what the key/value cache of a model takes, by part: predicted from its configuration, and measured by allocating
one (without being told, if it takes at most 256 MiB). Below, what other configurations would take. Of the model only headers
are read, no weights are loaded. With --max-memory, also the longest context that fits beside the weights; what a
computation needs in passing comes on top.

With --devices N every number is that of one of N devices, which share the model by key/value heads.`,
		Example: `  kvq memory --context 4096
  kvq memory --batch 8 --context 8192 --preset balanced --max-memory 2GiB
  kvq memory --context 1024 --cache full --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	f.model.register(fs)
	f.model.registerDevices(fs)
	f.cache.register(fs)
	fs.IntVar(&f.batch, "batch", 1, "rows")
	fs.IntVar(&f.context, "context", 0, "tokens of each row (0: as many as the model reads)")
	fs.BoolVar(&f.measure, "measure", false, "allocate the cache and measure it, whatever its size (--measure=false: never)")
	fs.StringVar(&f.maxMemory, "max-memory", "", "`size` of the device's memory, such as 16GiB: say which context fits")
	registerJSON(fs, &f.json)
	return c
}

func (f *memoryFlags) run(c *cobra.Command) error {
	files, err := f.model.open(c)
	if err != nil {
		return err
	}
	config, err := f.cache.config(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	j, err := f.predict(files, config)
	if err != nil {
		return err
	}
	words := lastWordsOf(c.Context())
	finish := func() error {
		if f.json {
			return printJSON(c.OutOrStdout(), j)
		}
		return j.print(c.OutOrStdout(), files.Config().Share(f.model.devices))
	}
	words.prepare(func() { _ = finish() })
	forced := c.Flags().Changed("measure")
	if f.measure || !forced && j.Cache.Bytes <= measureBelow {
		measured, err := f.measured(files, config, j.dtype)
		if err != nil {
			if forced {
				return err
			}
			// Nobody asked for a device: where there is none, the prediction will do.
			fmt.Fprintf(c.ErrOrStderr(), "kvq: warning: not measured: %s\n", oneLine(err))
		}
		_ = words.while(func() error { j.Measured = measured; return nil })
	}
	if err := words.finish(finish); err != nil {
		return err
	}
	return c.Context().Err()
}

// memoryJSON is what memory prints with --json.
type memoryJSON struct {
	Model          string           `json:"model"`
	DType          string           `json:"dtype"`
	Devices        int              `json:"devices"` // all bytes but stored_bytes are those of one of them
	Batch          int              `json:"batch"`
	Context        int              `json:"context"`
	Weights        weightsJSON      `json:"weights"`
	Cache          cacheJSON        `json:"cache"`    // predicted
	Measured       *measuredJSON    `json:"measured"` // null if it was not
	Configurations []configuredJSON `json:"configurations"`
	MaxMemory      int64            `json:"max_memory,omitempty"`

	dtype dtypes.DType
	plan  *kvq.Plan
}

type weightsJSON struct {
	Parameters int64 `json:"parameters"`
	Bytes      int64 `json:"bytes"` // on the device
	Stored     int64 `json:"stored_bytes"`
}

type measuredJSON struct {
	Device string     `json:"device"`
	Bytes  int64      `json:"bytes"`
	Parts  kvq.Memory `json:"parts"`
}

// configuredJSON is what a configuration would take.
type configuredJSON struct {
	Name           string  `json:"name"`
	Config         string  `json:"config"`
	BitsPerValue   float64 `json:"bits_per_value"`
	Bytes          int64   `json:"bytes"`
	WithWeights    int64   `json:"bytes_with_weights"`
	LongestContext *int    `json:"longest_context,omitempty"` // in --max-memory; 0 when not even one token fits
	Error          string  `json:"error,omitempty"`           // why the model cannot have it
}

// predict computes all sizes, from headers alone.
func (f *memoryFlags) predict(files *llama.Files, config kvq.Config) (*memoryJSON, error) {
	model := files.Config().Share(f.model.devices)
	if f.batch < 1 {
		return nil, usererr.New("--batch %d, want at least 1", f.batch)
	}
	if f.context < 0 || f.context > model.MaxPositions {
		return nil, usererr.New("--context %d, want 1 to %d, the most that the model reads", f.context, model.MaxPositions)
	}
	name := f.model.backend
	if name == "" {
		name = device.Default()
	}
	j := &memoryJSON{Model: files.Path(), Devices: f.model.devices, Batch: f.batch, Context: f.context, dtype: f.model.dtypeOn(name == device.XLACUDA)}
	if j.Context == 0 {
		j.Context = model.MaxPositions
	}
	if f.maxMemory != "" {
		limit, err := humanize.ParseBytes(f.maxMemory)
		if err != nil || limit == 0 || limit > math.MaxInt64 {
			return nil, usererr.New("--max-memory %q, want a size such as 16GiB or 800MB", f.maxMemory)
		}
		j.MaxMemory = int64(limit)
	}
	parameters := model.ParameterCount()
	j.DType = strings.ToLower(j.dtype.String())
	j.Weights = weightsJSON{parameters, parameters * int64(j.dtype.Size()), files.StoredBytes()}
	plan, err := planFor(config, model, f.batch, j.Context, j.dtype)
	if err != nil {
		return nil, err
	}
	full, err := planFor(kvq.Config{}, model, f.batch, j.Context, j.dtype)
	if err != nil {
		return nil, err
	}
	bits := plan.BitsPerValue()
	j.plan = plan
	j.Cache = cacheJSON{Config: config.String(), Bytes: plan.Memory().Total(), FullBytes: full.Memory().Total(), Parts: plan.Memory(), BitsPerValue: &bits}
	for _, c := range known(config) {
		j.Configurations = append(j.Configurations, j.configured(c.name, c.config, model))
	}
	slices.SortStableFunc(j.Configurations, func(a, b configuredJSON) int { return cmp.Compare(b.BitsPerValue, a.BitsPerValue) })
	return j, nil
}

// named is a configuration with a name.
type named struct {
	name   string
	config kvq.Config
}

// known lists the configurations worth a look: the one asked for among them.
func known(asked kvq.Config) []named {
	list := []named{{"full precision", kvq.Config{}}, {"tutorial", kvq.Tutorial()}}
	for _, name := range kvq.Presets() {
		if c, err := kvq.Preset(name); err == nil {
			list = append(list, named{name, c})
		}
	}
	for _, n := range list {
		if n.config == asked {
			return list
		}
	}
	return append([]named{{"as asked", asked}}, list...)
}

// configured says what a configuration would take.
func (j *memoryJSON) configured(name string, config kvq.Config, model llama.Config) configuredJSON {
	c := configuredJSON{Name: name, Config: config.String()}
	plan, err := planFor(config, model, j.Batch, j.Context, j.dtype)
	if err != nil {
		c.Error = oneLine(err)
		return c
	}
	c.BitsPerValue, c.Bytes = plan.BitsPerValue(), plan.Memory().Total()
	c.WithWeights = c.Bytes + j.Weights.Bytes
	if j.MaxMemory > 0 {
		longest := j.longest(plan, model.MaxPositions)
		c.LongestContext = &longest
	}
	return c
}

// longest is the longest context whose cache fits beside the weights.
func (j *memoryJSON) longest(plan *kvq.Plan, most int) int {
	low, high := 0, most // low fits, or is nothing at all
	for low < high {
		middle := (low + high + 1) / 2
		p, err := plan.WithCapacity(middle)
		if err == nil && p.Memory().Total()+j.Weights.Bytes <= j.MaxMemory {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}

// measured allocates an empty cache on the device, as a generation does, and counts its bytes.
func (f *memoryFlags) measured(files *llama.Files, config kvq.Config, dtype dtypes.DType) (*measuredJSON, error) {
	plan, err := planFor(config, files.Config().Share(f.model.devices), f.batch, f.contextOf(files), dtype)
	if err != nil {
		return nil, err
	}
	backend, info, err := openDevice(f.model.backend)
	if err != nil {
		return nil, err
	}
	defer backend.Finalize()
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
	fmt.Fprintf(w, "weights: %s parameters, %s as %s\n", humanize.Comma(j.Weights.Parameters), byteCount(j.Weights.Bytes), j.DType)
	fmt.Fprintf(w, "cache:   %s, batch %d, context %d\n", j.Cache.Config, j.Batch, j.Context)
	for _, line := range formula(j.plan, model) {
		fmt.Fprintf(w, "         %s\n", line)
	}
	fmt.Fprintln(w)
	t := newTable(w, 0, table.Row{"bytes of the cache", "predicted", "measured"})
	measured := func(i int) string {
		if j.Measured == nil {
			return "-"
		}
		return humanize.Comma(parts(j.Measured.Parts)[i].bytes)
	}
	for i, p := range parts(j.Cache.Parts) {
		if p.bytes > 0 || j.Measured != nil && parts(j.Measured.Parts)[i].bytes > 0 {
			t.AppendRow(table.Row{p.name, byteCount(p.bytes), measured(i)})
		}
	}
	all := "-"
	if j.Measured != nil {
		all = humanize.Comma(j.Measured.Bytes)
	}
	t.AppendSeparator()
	t.AppendRow(table.Row{"all", byteCount(j.Cache.Bytes), all})
	t.Render()
	fmt.Fprintln(w)

	header := table.Row{"configuration", "bits a value", "cache", "with weights", "of full precision"}
	if j.MaxMemory > 0 {
		header = append(header, "longest context in "+humanize.IBytes(uint64(j.MaxMemory)))
	}
	t = newTable(w, 0, header)
	for _, c := range j.Configurations {
		if c.Error != "" {
			t.AppendRow(table.Row{c.Name, "-", "not for this model", "-", "-"})
			continue
		}
		row := table.Row{c.Name, fmt.Sprintf("%.4g", c.BitsPerValue), humanize.IBytes(uint64(c.Bytes)), humanize.IBytes(uint64(c.WithWeights)),
			fmt.Sprintf("%.1f %%", 100*float64(c.Bytes)/float64(j.Cache.FullBytes))}
		if c.LongestContext != nil {
			text := humanize.Comma(int64(*c.LongestContext))
			switch *c.LongestContext {
			case 0:
				text = "none fits"
			case model.MaxPositions:
				text += " (all that the model reads)"
			}
			row = append(row, text)
		}
		t.AppendRow(row)
	}
	t.Render()
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
	return append(lines,
		"bits of a coded value = bits of its code + (bits of scale + bits of zero point) / values that share them",
		fmt.Sprintf("coded = batch %d x %d tokens x values of a token x %.4g bits / 8 = %s", s.Batch, tokens, bits, humanize.Comma(coded)),
		fmt.Sprintf("exact = batch %d x %d tokens (window and sinks) x values of a token x %d bytes = %s",
			s.Batch, (m.Window+m.Sinks)/perValue/size, size, humanize.Comma(m.Window+m.Sinks)))
}
