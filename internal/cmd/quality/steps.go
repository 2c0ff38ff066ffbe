package main

import "github.com/kvqbook/kvqbook/kvq"

// step is a row of the table: one more idea than the row before, or one that failed.
type step struct {
	name   string
	config kvq.Config
	note   string
	unseen bool // measured on the unseen texts too
}

var steps = makeSteps()

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
		c, err := kvq.Preset(name)
		if err != nil {
			panic(err)
		}
		return c
	}
	return []step{
		{"tutorial", tutorial, "quanto 4 bit, group 32, residual 64: transformers gives 13.997 and 0.0128 on the goldens' texts", true},
		{"quanto 4 bit, keys per channel", with(tutorial, func(c *kvq.Config) { c.AxisKey = kvq.PerChannel }), "transformers: 13.840, 0.0053", false},
		{"hqq 4 bit", with(tutorial, func(c *kvq.Config) { c.Backend = kvq.HQQ }), "transformers: 14.007, 0.0102", false},
		{"quanto 2 bit", with(tutorial, func(c *kvq.Config) { c.NBits = 2 }), "transformers: 30.821, 0.8004", false},
		{"quanto 2 bit, keys per channel", with(tutorial, func(c *kvq.Config) { c.NBits, c.AxisKey = 2, kvq.PerChannel }), "transformers: 16.726, 0.2337", false},
		{"3 bit per token", own, "our window: the newest 64 tokens always exact. From here on one idea a row, at 3 bits in groups of 64", false},
		{"+ keys per channel", perChannel, "outliers of keys live in channels", false},
		{"+ 4 sinks", sinks, "the first tokens get most of the attention", false},
		{"+ values rotated", values, "spreads a token's outliers over its channels", false},
		{"+ keys rotated", both, "", false},
		{"+ 8-bit scales", bytes, "a quarter of a bit saved", false},
		{"least-squares ranges", with(bytes, func(c *kvq.Config) { c.RangeKey, c.RangeValue = kvq.LeastSquares, kvq.LeastSquares }),
			"smaller errors, and what is cut off is a bias", false},
		{"smallest", preset("smallest"), "preset: the same with unbiased ranges", true},
		{"balanced", preset("balanced"), "preset", true},
		{"quality", preset("quality"), "preset", true},
		{"lowest", preset("lowest"), "preset", true},
		{"int8 per token and head", kvq.Config{Backend: kvq.Blocks, CodeKey: kvq.Int8, CodeValue: kvq.Int8, ResidualLength: 64}, "the fast option", false},
		{"float8 per token and head", kvq.Config{Backend: kvq.Blocks, CodeKey: kvq.Float8, CodeValue: kvq.Float8, ResidualLength: 64}, "", false},
	}
}
