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
// ones.
//
// Where only a small power of two divides the head dimension, rotation runs over small blocks and
// gains less (figures: docs/architectures.md, "Head dimensions").
var presets = map[string]Config{
	"quality":  preset(6, 64, 6, 64, ScaleFloat16), // 6.5 bits
	"balanced": preset(5, 64, 4, 64, ScaleFloat16), // 5 bits
	"smallest": preset(3, 64, 3, 64, Scale8),       // 3.25 bits
	"lowest":   preset(2, 32, 2, 64, Scale8),       // 2.375 bits
}

func preset(keyBits, keyGroup, valueBits, valueGroup int, scales ScaleFormat) Config {
	return Config{
		Backend:  Blocks,
		NBitsKey: keyBits, QGroupSizeKey: keyGroup, AxisKey: PerChannel, RotateKeys: true, QuantizerKey: Unbiased,
		NBitsValue: valueBits, QGroupSizeValue: valueGroup, RotateValues: true, QuantizerValue: Unbiased,
		ResidualLength: 64, Sinks: 4, Scales: scales,
	}
}

// Preset returns a named configuration: "quality" (no visible loss), "balanced" (at most 5 bits a
// value), "smallest" (at most 3.25) or "lowest" (at most 2.5), in heads of a multiple of 64
// elements; in others the groups are smaller and cost a little more ([PresetFor]). docs/quality.md
// has what each of them costs in perplexity, KL divergence and agreement.
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
