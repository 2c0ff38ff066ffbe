package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// CacheFlags describe a cache. Without any, it is the tutorial's.
type CacheFlags struct {
	Kind, backend, preset, layerBits string
	nbits, nbitsKey, nbitsValue      int
	group, groupKey, groupValue      int
	residual, sinks                  int
	axisKey, axisValue               int
	codeKey, codeValue, scales       string
	rangeKey, rangeValue             string
	rotateKeys, rotateValues         bool
	tokenScales                      bool
	feedbackKey, feedbackValue       string

	quantizedOnly []string // flags that make no sense with a full-precision cache
}

// KindFlag chooses between the two kinds of cache.
const KindFlag = "cache"

// presetFlag starts from a named configuration instead of the tutorial's.
const presetFlag = "preset"

// Register adds the flags.
func (f *CacheFlags) Register(fs *pflag.FlagSet) {
	fs.StringVar(&f.Kind, KindFlag, "quantized", "`kind` of the key/value cache: quantized or full")
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	own.StringVar(&f.preset, presetFlag, "", "`name` of the cache to start from: "+strings.Join(PresetNames(), ", ")+"; kvq presets tells them apart; or a file that kvq layerbits --write made (default tutorial)")
	own.StringVar(&f.backend, "cache-backend", "quanto", "who makes the codes: quanto, hqq (both as in transformers) or blocks (this library's own)")
	own.IntVar(&f.nbits, "nbits", 4, "bits of a code: "+usererr.OneOf(kvq.Widths()))
	own.IntVar(&f.nbitsKey, "nbits-key", 0, "bits of a key's code alone")
	own.IntVar(&f.nbitsValue, "nbits-value", 0, "bits of a value's code alone")
	own.StringVar(&f.layerBits, "layer-bits", "", "other key/value `bits` for some layers, such as 0-1=8/6,29=6/4")
	own.IntVar(&f.group, "q-group-size", 32, "values that share a scale")
	own.IntVar(&f.groupKey, "q-group-size-key", 0, "the same for keys alone")
	own.IntVar(&f.groupValue, "q-group-size-value", 0, "the same for values alone")
	own.IntVar(&f.residual, "residual-length", 64, "tokens kept in full precision before they are quantized")
	own.IntVar(&f.axisKey, "axis-key", 0, "groups of keys: 0 per token, -1 per channel")
	own.IntVar(&f.axisValue, "axis-value", 0, "groups of values: 0 per token, -1 per channel")
	own.IntVar(&f.sinks, "sinks", 0, "first tokens that stay in full precision (backend blocks)")
	own.StringVar(&f.scales, "scales", "", "`format` of scales and zero points: float32, float16, bfloat16 or "+string(kvq.Scale8)+" (default: the cache's dtype; float16 with backend blocks)")
	own.StringVar(&f.codeKey, "code-key", "", "`codes` of keys: "+oneOf(codeNames())+" (all but affine with backend blocks)")
	own.StringVar(&f.codeValue, "code-value", "", "`codes` of values, likewise")
	own.StringVar(&f.rangeKey, "range-key", "", "how the `range` of a group of keys is found: "+oneOf(rangeNames())+" (all but minmax with backend blocks)")
	own.StringVar(&f.rangeValue, "range-value", "", "likewise for `values`")
	own.BoolVar(&f.rotateKeys, "rotate-keys", false, "rotate keys by a Walsh-Hadamard transform first (backend blocks)")
	own.BoolVar(&f.rotateValues, "rotate-values", false, "rotate values likewise")
	own.BoolVar(&f.tokenScales, "token-scales", false, "a scale for each token of keys beside that for each channel (backend blocks, keys per channel)")
	own.StringVar(&f.feedbackKey, "feedback-key", "", "what says how much the `errors` of a key's channels matter beside one another, when they are rounded: queries, those of the prompt; calibrated, those of kvq calibrate; queries+calibrated, both; weights, what the model's weights tell of queries (backend blocks)")
	own.StringVar(&f.feedbackValue, "feedback-value", "", "the same for `errors` of a value's channels: output, the model's matrix behind attention (backend blocks)")
	own.VisitAll(func(flag *pflag.Flag) {
		f.quantizedOnly = append(f.quantizedOnly, flag.Name)
		if flag.Name != presetFlag {
			under(own, cacheHeading, flag.Name)
		}
	})
	fs.AddFlagSet(own)
}

// Config returns the cache that the flags describe, checked for a model: group sizes that no flag
// asked for are fitted to its heads (see [NoteGroups]).
func (f *CacheFlags) Config(fs *pflag.FlagSet, model llama.Config) (kvq.Config, error) {
	c, err := f.Parse(fs)
	if err != nil {
		return kvq.Config{}, err
	}
	c = f.Fit(fs, c, model)
	// A small plan, so that what is wrong shows before any weight is loaded.
	plan, err := PlanFor(c, model, 1, 1, dtypes.Float32)
	if err != nil {
		return kvq.Config{}, inFlagWords(fs, err)
	}
	return plan.Config(), nil
}

// NamedConfig is a cache, and what it was asked for as.
type NamedConfig struct {
	Name   string
	Config kvq.Config
}

// Configs is Config for a command that takes several presets, with commas between their names. The
// other flags change each of them.
func (f *CacheFlags) Configs(fs *pflag.FlagSet, model llama.Config) ([]NamedConfig, error) {
	var list []NamedConfig
	for name := range strings.SplitSeq(f.preset, ",") {
		one := *f
		one.preset = strings.TrimSpace(name)
		config, err := one.Config(fs, model)
		if err != nil {
			return nil, err
		}
		list = append(list, NamedConfig{cmp.Or(one.preset, config.String()), config})
	}
	return list, nil
}

// Given tells whether any flag says what the cache is.
func (f *CacheFlags) Given(fs *pflag.FlagSet) bool {
	return fs.Changed(KindFlag) || slices.ContainsFunc(f.quantizedOnly, fs.Changed)
}

// Preset is the preset asked for, "" for none.
func (f *CacheFlags) Preset() string { return f.preset }

// Parse builds the configuration: the preset or the tutorial's, and over it the flags that were
// given. A flag for keys and values both clears what the preset says for one of them.
func (f *CacheFlags) Parse(fs *pflag.FlagSet) (kvq.Config, error) {
	switch {
	case f.Kind == "full", f.Kind == "quantized" && f.preset == FullName:
		for _, name := range f.quantizedOnly {
			if fs.Changed(name) && !(name == presetFlag && f.preset == FullName) {
				return kvq.Config{}, usererr.New("--%s describes a quantized cache, and full precision was asked for", name)
			}
		}
		return kvq.Config{}, nil
	case f.Kind == "quantized":
	default:
		return kvq.Config{}, usererr.New("--cache %q, want quantized or full", f.Kind)
	}
	c := kvq.Tutorial()
	if f.preset != "" || fs.Changed(presetFlag) {
		var err error
		if c, err = Preset(f.preset); err != nil {
			return c, usererr.New("--preset: %w", err)
		}
	}
	for _, n := range []struct {
		name  string
		value int
		set   func(int)
	}{
		{"nbits", f.nbits, func(n int) { c.NBits, c.NBitsKey, c.NBitsValue, c.LayerBits = n, 0, 0, "" }},
		{"nbits-key", f.nbitsKey, func(n int) { c.NBitsKey = n }},
		{"nbits-value", f.nbitsValue, func(n int) { c.NBitsValue = n }},
		{"q-group-size", f.group, func(n int) { c.QGroupSize, c.QGroupSizeKey, c.QGroupSizeValue = n, 0, 0 }},
		{"q-group-size-key", f.groupKey, func(n int) { c.QGroupSizeKey = n }},
		{"q-group-size-value", f.groupValue, func(n int) { c.QGroupSizeValue = n }},
	} {
		if !fs.Changed(n.name) {
			continue
		}
		if n.value < 1 { // 0 would mean "as usual" to the library
			return c, usererr.New("--%s %d, want at least 1", n.name, n.value)
		}
		n.set(n.value)
	}
	for name, set := range map[string]func(){
		"cache-backend":   func() { c.Backend = kvq.Backend(f.backend) },
		"layer-bits":      func() { c.LayerBits = f.layerBits },
		"residual-length": func() { c.ResidualLength = f.residual },
		"axis-key":        func() { c.AxisKey = kvq.Axis(f.axisKey) },
		"axis-value":      func() { c.AxisValue = kvq.Axis(f.axisValue) },
		"sinks":           func() { c.Sinks = f.sinks },
		"scales":          func() { c.Scales = kvq.ScaleFormat(f.scales) },
		"rotate-keys":     func() { c.RotateKeys = f.rotateKeys },
		"rotate-values":   func() { c.RotateValues = f.rotateValues },
		"token-scales":    func() { c.TokenScales = f.tokenScales },
		"feedback-value":  func() { c.FeedbackValue = kvq.Feedback(f.feedbackValue) },
		"feedback-key":    func() { c.FeedbackKey = kvq.Feedback(f.feedbackKey) },
	} {
		if fs.Changed(name) {
			set()
		}
	}
	for _, q := range []struct {
		side, code, rng string
		to              *kvq.Quantizer
	}{{"key", f.codeKey, f.rangeKey, &c.QuantizerKey}, {"value", f.codeValue, f.rangeValue, &c.QuantizerValue}} {
		if err := quantizer(fs, q.side, q.code, q.rng, q.to); err != nil {
			return c, err
		}
	}
	if c.Backend == kvq.Full {
		return c, usererr.New("--cache-backend %q, want %s, %s or %s", f.backend, kvq.Quanto, kvq.HQQ, kvq.Blocks)
	}
	return c, nil
}

// The flags name a quantizer by two things: what its codes stand for, and how it finds the range of
// a group. Quantizers without zero points are codes, the others are ranges of affine codes.
const (
	affineCodes = "affine"
	minMaxRange = "minmax" // the backend's own
)

// codeNames are the values of --code-key and --code-value.
func codeNames() []string {
	names := []string{affineCodes}
	for _, q := range kvq.Quantizers() {
		if !q.HasZeros() {
			names = append(names, string(q))
		}
	}
	return names
}

// rangeNames are the values of --range-key and --range-value.
func rangeNames() []string {
	names := []string{minMaxRange}
	for _, q := range kvq.Quantizers() {
		if q.HasZeros() && q != kvq.MinMax {
			names = append(names, string(q))
		}
	}
	return names
}

// oneOf lists names without quotes: "a, b or c".
func oneOf(names []string) string { return strings.ReplaceAll(usererr.OneOf(names), `"`, "") }

// quantizer applies the two flags for keys or values to the quantizer that stands there.
func quantizer(fs *pflag.FlagSet, side, code, rng string, to *kvq.Quantizer) error {
	codes, ranges := kvq.Quantizer(""), kvq.Quantizer("")
	if to.HasZeros() {
		ranges = *to
	} else {
		codes = *to
	}
	if name := "code-" + side; fs.Changed(name) {
		if code != "" && !slices.Contains(codeNames(), code) {
			return usererr.New("--%s %q, want %s", name, code, oneOf(codeNames()))
		}
		codes = kvq.Quantizer(strings.TrimPrefix(code, affineCodes))
	}
	if name := "range-" + side; fs.Changed(name) {
		if rng != "" && !slices.Contains(rangeNames(), rng) {
			return usererr.New("--%s %q, want %s", name, rng, oneOf(rangeNames()))
		}
		ranges = kvq.Quantizer(strings.TrimPrefix(rng, minMaxRange))
	}
	if codes != "" && ranges != "" {
		return usererr.New("--range-%s: %q needs affine codes, got %q", side, ranges, codes)
	}
	*to = codes + ranges
	return nil
}

// PlanFor lays out a cache for a model. What the library refuses is bad input here.
func PlanFor(c kvq.Config, model llama.Config, batch, tokens int, dtype dtypes.DType) (*kvq.Plan, error) {
	plan, err := kvq.New(c, kvq.Shape{
		Layers: model.Layers, Batch: batch, KVHeads: model.KVHeads, HeadDim: model.HeadDim,
		Capacity: tokens, DType: dtype, SlidingWindow: model.SlidingWindow,
	})
	if err != nil {
		return nil, usererr.New("cache: %w", err)
	}
	return plan, nil
}
