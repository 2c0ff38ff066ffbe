package kvq

import (
	"maps"
	"slices"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// presets are the configurations that docs/quality.md measures. All keep the newest 64 tokens and
// the first 4 exact, code keys per channel and values per token, both rotated and with unbiased
// ranges: what each of these is worth is in the table there. Bits a value: those of a code and of
// scale and zero point, 16 each or 8 each, for a group; keys and values averaged. A scale in a byte
// is right to 3 % only, which does not show beside codes of 2 or 3 bits but would beside finer
// ones. With codes of 2 and 3 bits keys have a scale for each token too, and their errors are fed
// back in the metric of the prompt's queries, kept for each row and counted over 2,048 tokens.
//
// Where only a small power of two divides the head dimension, rotation runs over small blocks and
// gains less (figures: docs/architectures.md, "Head dimensions").
var presets = map[string]Config{
	"quality":  preset(6, 64, 6, 64, ScaleFloat16),    // 6.5 bits
	"balanced": preset(5, 64, 4, 64, ScaleFloat16),    // 5 bits
	"smallest": fedBack(preset(3, 64, 3, 64, Scale8)), // 3.35 bits
	"lower":    fedBack(preset(3, 64, 2, 64, Scale8)), // 2.85 bits
	"lowest":   fedBack(preset(2, 32, 2, 64, Scale8)), // 2.47 bits
}

func preset(keyBits, keyGroup, valueBits, valueGroup int, scales ScaleFormat) Config {
	return Config{
		Backend:  Blocks,
		NBitsKey: keyBits, QGroupSizeKey: keyGroup, AxisKey: PerChannel, RotateKeys: true, QuantizerKey: Unbiased,
		NBitsValue: valueBits, QGroupSizeValue: valueGroup, RotateValues: true, QuantizerValue: Unbiased,
		ResidualLength: 64, Sinks: 4, Scales: scales,
	}
}

func fedBack(c Config) Config {
	c.TokenScales, c.FeedbackKey = true, FeedbackQueries
	return c
}

// Preset returns a named configuration: "quality" (no visible loss), "balanced" (at most 5 bits a
// value), "smallest" (at most 3.35), "lower" (at most 2.85) or "lowest" (at most 2.5). Bits are
// those of [Plan.BitsPerValue], in heads of a multiple of 64 elements; in others the groups are
// smaller ([PresetFor]). What the last three keep of a prompt's queries ([Memory].Metric) is not in
// them: 1/30 bit a value of a row of 2,048 tokens in heads of 64 elements, 1/15 in heads of 128.
// docs/quality.md has what each of them costs in perplexity, KL divergence and agreement.
//
// The last three learn from the queries of the step that starts a cache, which has to attend in
// every layer ([FeedbackQueries]).
func Preset(name string) (Config, error) {
	c, ok := presets[name]
	if !ok {
		return Config{}, usererr.New("kvq.Preset: want one of %q, got %q", Presets(), name)
	}
	return c, nil
}

// PresetFor is [Preset] with groups for heads of headDim elements: see [Config.For]. [New] does the
// same with a preset that is handed on unchanged, so this is for one whose other fields are to be
// set, and to see what New takes.
func PresetFor(name string, headDim int) (Config, error) {
	c, err := Preset(name)
	return c.For(headDim), err
}

// Presets lists the names that [Preset] knows, in alphabetical order.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }
