package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/kvq"
)

// Fit fits the group sizes of what Parse returned to heads of headDim elements, but for those that
// a flag asks for: these have to fit, or are the library's own names for it (see [kvq.New]).
func (f *CacheFlags) Fit(fs *pflag.FlagSet, c kvq.Config, headDim int) kvq.Config {
	fitted := c.For(headDim)
	key, value := c.GroupSizes()
	fittedKey, fittedValue := fitted.GroupSizes()
	both := fs.Changed("q-group-size")
	if fittedKey != key && (both || fs.Changed("q-group-size-key")) ||
		fittedValue != value && (both || fs.Changed("q-group-size-value")) {
		return c
	}
	return fitted
}

// NoteGroups says in one line on errs which groups the cache has instead of those that were asked
// for, by a flag, a preset or as the default. There is nothing to say where they fit the heads.
func (f *CacheFlags) NoteGroups(errs io.Writer, fs *pflag.FlagSet, used kvq.Config, headDim int) {
	asked, err := f.Parse(fs)
	if err != nil {
		return // whoever uses the flags says so
	}
	if line := groupsLine(fs, f.preset, asked, used, headDim); line != "" {
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
