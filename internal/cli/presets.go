package cli

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Names of --preset besides the library's presets.
const (
	FullName     = "full"
	TutorialName = "tutorial"
)

// PresetNames are the names of --preset: full precision, the tutorial's cache, then the library's
// presets from the most bits down.
func PresetNames() []string {
	return []string{FullName, TutorialName, "quality", "balanced", "smallest", "lower", "lowest"}
}

// TakeIt says when to take the cache of that name. docs/choosing.md says it too.
func TakeIt(name string) string {
	return map[string]string{
		FullName:     "for short texts, and to compare with",
		TutorialName: "to see what transformers does",
		"quality":    "when nobody may see a difference",
		"balanced":   "as a rule",
		"smallest":   "for long contexts, or many rows",
		"lower":      "when smallest does not fit",
		"lowest":     "when nothing else fits",
	}[name]
}

// IsPresetFile tells whether a --preset is a file's name: what kvq layerbits --write made, or a
// [kvq.Config] as JSON.
func IsPresetFile(name string) bool { return strings.HasSuffix(name, ".json") }

// Preset is the cache of that name, or of that file.
func Preset(name string) (kvq.Config, error) {
	if IsPresetFile(name) {
		return presetOf(name)
	}
	switch name {
	case FullName:
		return kvq.Config{}, nil
	case TutorialName:
		return kvq.Tutorial(), nil
	}
	if !slices.Contains(kvq.Presets(), name) {
		return kvq.Config{}, usererr.New("want %s, got %q%s", oneOf(PresetNames()), name, Suggest(name, PresetNames()))
	}
	return kvq.Preset(name)
}

// PresetFor is the cache of that name for a model: see [llama.PresetFor].
func PresetFor(name string, model llama.Config) (kvq.Config, error) {
	c, err := Preset(name)
	if err != nil || !slices.Contains(kvq.Presets(), name) {
		return c.For(model.HeadDim), err
	}
	return llama.PresetFor(name, model)
}

// presetOf reads a file of [IsPresetFile].
func presetOf(path string) (c kvq.Config, err error) {
	text, err := filesys.Read(path)
	if err != nil {
		return c, usererr.New("%w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, usererr.New("%s: want a cache as kvq layerbits --write has it: %w", path, err)
	}
	if c.Backend == kvq.Full {
		return c, usererr.New("%s: want a cache as kvq layerbits --write has it, got one without a backend", path)
	}
	return c, nil
}
