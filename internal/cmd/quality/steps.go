package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// step is a row of the tables: one more idea than the row before, or one that failed.
type step struct {
	name   string
	config kvq.Config
	note   string
	// the row of the goldens that measured the same cache with transformers; "" where there is none
	golden string
}

// measuredModel is the model whose presets are measured: that of the set-up, until another is
// opened.
var measuredModel = llama.Config{Layers: 30, HiddenSize: 576, HeadDim: 64, VocabSize: 49152, RopeTheta: 100000}

// tutorialName is the row that the others are compared with.
const tutorialName = "tutorial"

func makeSteps() []step {
	tutorial := kvq.Tutorial()
	with := func(c kvq.Config, change func(*kvq.Config)) kvq.Config {
		change(&c)
		return c
	}
	own := kvq.Config{Backend: kvq.Blocks, NBits: 3, QGroupSize: 64, ResidualLength: 64}
	perChannel := with(own, func(c *kvq.Config) { c.AxisKey = kvq.PerChannel })
	sinks := with(perChannel, func(c *kvq.Config) { c.Sinks = 4 })
	values := with(sinks, func(c *kvq.Config) { c.RotateValues = true })
	both := with(values, func(c *kvq.Config) { c.RotateKeys = true })
	bytes := with(both, func(c *kvq.Config) { c.Scales = kvq.Scale8 })
	preset := func(name string) kvq.Config {
		c, err := llama.PresetFor(name, measuredModel)
		if err != nil {
			panic(err)
		}
		return c
	}
	list := []step{
		{tutorialName, tutorial, "quanto 4 bit, group 32, residual 64", "quanto_b4_g32_r64"},
		{"quanto 4 bit keys per channel", with(tutorial, func(c *kvq.Config) { c.AxisKey = kvq.PerChannel }), "", "quanto_b4_g32_r64_km1_v0"},
		{"hqq 4 bit", with(tutorial, func(c *kvq.Config) { c.Backend = kvq.HQQ }), "", "hqq_b4_g32_r64_ax1"},
		{"quanto 2 bit", with(tutorial, func(c *kvq.Config) { c.NBits = 2 }), "", "quanto_b2_g32_r64"},
		{"quanto 2 bit keys per channel", with(tutorial, func(c *kvq.Config) { c.NBits, c.AxisKey = 2, kvq.PerChannel }), "", "quanto_b2_g32_r64_km1_v0"},
		{"hqq 2 bit", with(tutorial, func(c *kvq.Config) { c.Backend, c.NBits = kvq.HQQ, 2 }), "", "hqq_b2_g32_r64_ax1"},
		{"quanto 2 bit group 64", with(tutorial, func(c *kvq.Config) { c.NBits, c.QGroupSize = 2, 64 }), "", "quanto_b2_g64_r64"},
		{"3 bit per token", own, "our window: the newest 64 tokens always exact. From here on one idea a row, at 3 bits in groups of 64", ""},
		{"+ keys per channel", perChannel, "outliers of keys live in channels", ""},
		{"+ 4 sinks", sinks, "the first tokens get most of the attention", ""},
		{"+ values rotated", values, "spreads a token's outliers over its channels", ""},
		{"+ keys rotated", both, "", ""},
		{"+ 8-bit scales", bytes, "a quarter of a bit saved", ""},
		{"least-squares ranges", with(bytes, func(c *kvq.Config) { c.QuantizerKey, c.QuantizerValue = kvq.LeastSquares, kvq.LeastSquares }),
			"smaller errors, and what is cut off is a bias", ""},
		{"unbiased ranges", with(bytes, func(c *kvq.Config) { c.QuantizerKey, c.QuantizerValue = kvq.Unbiased, kvq.Unbiased }), "the same with unbiased ranges", ""},
		{"smallest", preset("smallest"), "preset", ""},
		{"balanced", preset("balanced"), "preset", ""},
		{"quality", preset("quality"), "preset", ""},
		{"lower", preset("lower"), "preset", ""},
		{"lowest", preset("lowest"), "preset", ""},
	}
	for _, more := range []func(func(string) kvq.Config) []step{ablations, sources, fewest} {
		list = append(list, more(preset)...)
	}
	return append(list, []step{
		{"int8 per token and head", kvq.Config{Backend: kvq.Blocks, QuantizerKey: kvq.Int8, QuantizerValue: kvq.Int8, ResidualLength: 64}, "the fast option", ""},
		{"float8 per token and head", kvq.Config{Backend: kvq.Blocks, QuantizerKey: kvq.Float8, QuantizerValue: kvq.Float8, ResidualLength: 64}, "", ""},
	}...)
}

// keyCaches are the caches that look for passkeys: full precision first, the tutorial's, the
// presets.
func keyCaches() []step {
	list := []step{{name: "full precision"}}
	for _, s := range makeSteps() {
		if s.name == tutorialName || slices.Contains(kvq.Presets(), s.name) {
			list = append(list, s)
		}
	}
	return list
}

// job is a row to measure: a cache over texts, over passkeys of one length, or a part of --judge.
type job struct {
	step   step
	length int    // of texts with passkeys or questions; 0: the texts
	part   string // of --judge; "" else
}

func (j job) name() string {
	switch {
	case j.part != "" && j.length > 0:
		return fmt.Sprintf("%s %d %s", j.part, j.length, j.step.name)
	case j.part != "":
		return j.part + " " + j.step.name
	case j.length > 0:
		return fmt.Sprintf("passkey %d %s", j.length, j.step.name)
	}
	return j.step.name
}

// large tells whether a job takes much memory: passkeys do, for the attention of many long prompts.
func (j job) large() bool { return j.length > 0 && j.part == "" }

// makeJobs lists the rows whose names match one of the patterns, all where there are none. Patterns
// are those of path.Match, split at commas, whose * stands for any part.
func makeJobs(lengths []int, only string) ([]job, error) {
	var all []job
	for _, s := range makeSteps() {
		all = append(all, job{step: s})
	}
	for _, n := range lengths {
		for _, s := range keyCaches() {
			all = append(all, job{step: s, length: n})
		}
	}
	return choose(all, only)
}

// choose takes the jobs whose names match one of the patterns.
func choose(all []job, only string) ([]job, error) {
	if only == "" {
		return all, nil
	}
	var chosen []job
	for pattern := range strings.SplitSeq(only, ",") {
		found := false
		for _, j := range all {
			ok, err := path.Match(strings.TrimSpace(pattern), j.name())
			if err != nil {
				return nil, usererr.New("--only %q: %w", pattern, err)
			}
			if found = found || ok; ok && !slices.ContainsFunc(chosen, func(c job) bool { return c.name() == j.name() }) {
				chosen = append(chosen, j)
			}
		}
		if !found {
			return nil, usererr.New("--only %q names no row; --list lists them", pattern)
		}
	}
	return chosen, nil
}
