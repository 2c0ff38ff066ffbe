package kvq_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// hostile data for one row: what keys and values become, by token and channel.
var hostile = []struct {
	name   string
	change func(x float32, token, channel int) float32
}{
	{"zeros", func(float32, int, int) float32 { return 0 }},
	{"one constant", func(float32, int, int) float32 { return -3.25 }},
	{"constant channels", func(_ float32, _, channel int) float32 { return float32(channel) }},
	{"constant tokens", func(_ float32, token, _ int) float32 { return float32(token % 7) }},
	{"denormal", func(x float32, _, _ int) float32 { return x * 1e-40 }},
	{"an outlier", func(x float32, token, channel int) float32 {
		if token%11 == 3 && channel == 5 {
			return 1e5
		}
		return x
	}},
	{"beyond float16", func(x float32, _, _ int) float32 { return x * 1e7 }},
	{"huge", func(x float32, _, _ int) float32 { return x * 1e18 }},
	{"far from zero", func(x float32, _, _ int) float32 { return 4096 + x/16 }},
}

// hostileConfigs are kinds of cache that reach every quantizer and scale format.
func hostileConfigs() []suiteCase {
	return []suiteCase{
		{name: "full float16", dtype: dtypes.Float16, dim: 32},
		{name: "quanto", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 8}, dtype: dtypes.Float32, dim: 32},
		{name: "quanto float16", config: Config{Backend: Quanto, NBits: 2, QGroupSize: 32, ResidualLength: 8}, dtype: dtypes.Float16, dim: 32},
		{name: "hqq", config: Config{Backend: HQQ, NBits: 4, QGroupSize: 32, ResidualLength: 8}, dtype: dtypes.Float32, dim: 32},
		{name: "blocks", config: blocks(3, perChannelKeys), dtype: dtypes.Float32, dim: 32},
		{name: "8-bit scales, rotated", config: blocks(4, func(c *Config) { perChannelKeys(c); c.Scales, c.RotateKeys, c.RotateValues = Scale8, true, true }), dtype: dtypes.BFloat16, dim: 32},
		{name: "keys per channel and token", config: blocks(2, func(c *Config) { perChannelKeys(c); c.TokenScales, c.Scales, c.QuantizerKey = true, Scale8, Unbiased }), dtype: dtypes.Float32, dim: 32},
		{name: "symmetric and float8", config: blocks(4, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Symmetric, Float8 }), dtype: dtypes.Float32, dim: 32},
		{name: "int8", config: blocks(0, func(c *Config) { c.QuantizerKey, c.QuantizerValue = Int8, Int8 }), dtype: dtypes.Float16, dim: 32},
		{name: "searched", config: blocks(2, func(c *Config) { c.QuantizerKey, c.QuantizerValue = LeastSquares, Unbiased }), dtype: dtypes.Float32, dim: 32},
	}
}

// From finite input, whatever its size, comes finite output; and the row beside it does not notice.
func TestHostileInput(t *testing.T) {
	for i, c := range hostileConfigs() {
		t.Run(c.name, func(t *testing.T) {
			switch {
			case i == 0:
			case c.name == "8-bit scales, rotated" || c.name == "symmetric and float8":
				testlane.Slow(t, "one cache is enough for a quick look")
			default:
				testlane.OnlyAll(t, "three caches have every kind of code and scale")
			}
			t.Parallel()
			shape := c.shape(2, 64)
			shape.Layers = 1
			calm := newSession(t, newPlan(t, c.config, shape), makeInputs(5, shape, suiteHeads, 64, 0, 0))
			calm.in.dtype = dtypes.Float32 // a model may compute in more than the cache keeps
			play := func(s *session) {
				s.prompt(40)
				for s.slots < 60 {
					s.step(1)
					// infinite for what is not finite
					if worst, at := worstAttention(s, 1, s.out[0], s.out[0]); worst > 0 {
						s.t.Fatalf("slot %d: an answer is not finite: %s", s.slots, at)
					}
				}
			}
			play(calm)
			for _, h := range hostile {
				t.Run(h.name, func(t *testing.T) {
					s := calm.fork()
					s.t, s.in = t, makeInputs(5, shape, suiteHeads, 64, 0, 0)
					data := s.in.rows[1]
					for _, part := range [][][][]float32{data.keys[0], data.values[0]} {
						for i, token := range part {
							for _, head := range token {
								for d := range head {
									// not rounded to the cache's dtype: that is the cache's affair
									head[d] = h.change(head[d], i, d)
								}
							}
						}
					}
					s.in.dtype = dtypes.Float32
					play(s)
					requireSameTokens(t, "the row beside it", s.held()[0][0], calm.held()[0][0])
					requireFiniteAndNear(t, s, h.name)
				})
			}
		})
	}
}

// requireFiniteAndNear looks at what the cache holds of the hostile row: constant groups come back
// exactly where scales are floats of the cache's own dtype, and nothing is farther from its input
// than the input's largest value.
func requireFiniteAndNear(t *testing.T, s *session, name string) {
	t.Helper()
	for i, tok := range s.held()[0][1] {
		for head := range tok.keys {
			for _, pair := range [][2][]float64{
				{tok.keys[head], wide(s.in.rows[1].keys[0][i][head])},
				{tok.values[head], wide(s.in.rows[1].values[0][i][head])},
			} {
				largest := 0.0
				for _, row := range s.in.rows[1].keys[0] {
					for _, x := range append(row[head], s.in.rows[1].values[0][i][head]...) {
						largest = max(largest, math.Abs(float64(x)))
					}
				}
				for d, got := range pair[0] {
					if math.IsNaN(got) || math.IsInf(got, 0) || math.Abs(got-pair[1][d]) > 2*largest+1e-30 {
						t.Fatalf("token %d in %c, channel %d: holds %v of %v", i, tok.place, d, got, pair[1][d])
					}
				}
				constant := name == "zeros" || name == "one constant"
				if float := s.plan.Config().Scales == "" && s.plan.Config().Backend == Quanto; constant && float && fmt.Sprint(pair[0]) != fmt.Sprint(pair[1]) {
					t.Fatalf("token %d: a constant came back as %v", i, pair[0])
				}
			}
		}
	}
}

// NaN and infinities are not hidden: while one lies in a slot of the window, its head answers NaN,
// as without a cache. Its codes are finite: NaN takes the lowest code, an infinity the end of its
// group's range. So it is gone when the slot is used again. No other head and no other row notices.
func TestNotANumberIsSeenAndThenContained(t *testing.T) {
	c := suiteCase{config: blocks(8, func(c *Config) { c.ResidualLength = 2 }), dtype: dtypes.Float32, dim: 32}
	s := c.short(t, 128)
	s.in.rows[0].values[0][35][1][7] = float32(math.NaN())
	s.in.rows[0].keys[0][3][0][9] = float32(math.Inf(1))
	s.prompt(34)
	for s.slots < 75 {
		s.step(1)
		// The window is a ring of 34 slots: token 3 lies there until token 37 comes, token 35 until
		// token 69. It is coded at slot 67: from there on graph operations multiply it by 0, which
		// is NaN, and the kernel leaves it out.
		for head := range suiteHeads {
			x := s.out[0].Row(0, head, 0)[7]
			switch {
			case head >= suiteHeads/2 && s.slots > 66 && s.slots <= 69:
			case head >= suiteHeads/2 && s.slots > 35 && s.slots <= 66:
				if !math.IsNaN(x) {
					t.Errorf("slot %d, head %d answers %v though it sees a NaN", s.slots, head, x)
				}
			// infinity times a query is infinite, of either sign
			case head < suiteHeads/2 && s.slots <= 37:
			case math.IsNaN(x):
				t.Errorf("slot %d: head %d answers NaN", s.slots, head)
			}
		}
	}
	for i, tok := range s.held()[0][0] {
		for head := range tok.keys {
			for d := range tok.keys[head] {
				if x := tok.keys[head][d] + tok.values[head][d]; math.IsNaN(x) || math.IsInf(x, 0) {
					t.Errorf("token %d in %c, head %d, channel %d is not finite", i, tok.place, head, d)
				}
			}
		}
	}
}
