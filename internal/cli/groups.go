package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// ownBits are the flags that say how many bits a layer has, or what these stand for: with one of
// them a preset is no longer the one whose bits were spread over a model's layers.
var ownBits = []string{"nbits", "nbits-key", "nbits-value", "layer-bits", "q-group-size", "q-group-size-key", "code-key", "code-value", "cache-backend"}

// Fit fits what Parse returned to a model. A preset has the bits that were spread over the layers
// of such a model ([llama.PresetFor]), but for flags that ask for other bits. Group sizes are
// fitted to its heads, but for those that a flag asks for: these have to fit, or are the library's
// own names for it (see [kvq.New]).
func (f *CacheFlags) Fit(fs *pflag.FlagSet, c kvq.Config, model llama.Config) kvq.Config {
	c = f.spread(fs, c, model)
	fitted := c.For(model.HeadDim)
	key, value := c.GroupSizes()
	fittedKey, fittedValue := fitted.GroupSizes()
	both := fs.Changed("q-group-size")
	if fittedKey != key && (both || fs.Changed("q-group-size-key")) ||
		fittedValue != value && (both || fs.Changed("q-group-size-value")) {
		return c
	}
	return fitted
}

// spread is what Parse returned, with the bits that the model's layers have in the preset.
func (f *CacheFlags) spread(fs *pflag.FlagSet, c kvq.Config, model llama.Config) kvq.Config {
	if !c.Quantized() || slices.ContainsFunc(ownBits, fs.Changed) {
		return c
	}
	return llama.WithTunedBits(c, f.preset, model)
}

// NoteGroups says in one line on errs which groups the cache has instead of those that were asked
// for, by a flag, a preset or as the default. There is nothing to say where they fit the heads.
func (f *CacheFlags) NoteGroups(errs io.Writer, fs *pflag.FlagSet, used kvq.Config, model llama.Config) {
	asked, err := f.Parse(fs)
	if err != nil {
		return // whoever uses the flags says so
	}
	if line := groupsLine(fs, f.preset, f.spread(fs, asked, model), used, model.HeadDim); line != "" {
		fmt.Fprintln(errs, line)
	}
}

// groupsLine is the line of NoteGroups; "" for none.
func groupsLine(fs *pflag.FlagSet, preset string, asked, used kvq.Config, headDim int) string {
	key, value := asked.GroupSizes()
	usedKey, usedValue := used.GroupSizes()
	who := func(field string) string {
		for _, flag := range fieldFlags[field] {
			if fs.Changed(flag) {
				return "--" + flag
			}
		}
		if preset != "" {
			return "--" + presetFlag + " " + preset
		}
		return "the tutorial's --q-group-size"
	}
	var parts []string
	if usedKey != key {
		parts = append(parts, fmt.Sprintf("keys in groups of %d, not %d (%s)", usedKey, key, who("QGroupSizeKey")))
	}
	if usedValue != value {
		parts = append(parts, fmt.Sprintf("values in groups of %d, not %d (%s)", usedValue, value, who("QGroupSizeValue")))
	}
	if len(parts) == 2 && usedKey == usedValue && key == value {
		parts = []string{fmt.Sprintf("groups of %d, not %d (%s)", usedKey, key, who("QGroupSizeKey"))}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("kvq: note: %s: they have to divide the head dimension %d", strings.Join(parts, ", "), headDim)
}
