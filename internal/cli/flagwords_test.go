package cli

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Every field of a configuration has a flag, and the flag exists.
func TestFieldFlags(t *testing.T) {
	var f CacheFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.Register(fs)
	config := reflect.TypeFor[kvq.Config]()
	for i := range config.NumField() {
		if flags := fieldFlags[config.Field(i).Name]; len(flags) == 0 {
			t.Errorf("kvq.Config.%s has no flag", config.Field(i).Name)
		}
	}
	for field, flags := range fieldFlags {
		if _, ok := config.FieldByName(field); !ok {
			t.Errorf("kvq.Config has no field %s", field)
		}
		for _, name := range flags {
			if fs.Lookup(name) == nil {
				t.Errorf("%s: there is no flag --%s", field, name)
			}
		}
	}
}

// An error of a configuration names the flag that was set.
func TestErrorsNameFlags(t *testing.T) {
	model := llama.Config{Layers: 4, KVHeads: 2, HeadDim: 64}
	for args, want := range map[string]string{
		"--nbits 7":                 "--nbits: want 1, 2, 3, 4, 5, 6 or 8, got 7",
		"--nbits 4 --nbits-value 7": "--nbits-value: want 1, 2, 3, 4, 5, 6 or 8, got 7",
		"--q-group-size 48":         "--q-group-size: want a divisor of the head dimension 64, got 48: take 32",
		"--q-group-size-key 48":     "--q-group-size-key: want a divisor of the head dimension 64, got 48: take 32",
		"--sinks 4":                 `--sinks: want 0 (sinks need backend "blocks"), got 4`,
		"--axis-value 3":            "--axis-value: want 0 (per token) or -1 (per channel), got 3",
		"--residual-length 0":       "--residual-length: want at least 1 for backend quanto, got 0",
		"--cache-backend gptq":      `--cache-backend: want`,
		"--scales float64":          "--scales: ",
		"--layer-bits x":            `--layer-bits: want entries like "0-1=8/6"`,
		"--layer-bits 99=6/4":       "--layer-bits: want layers 0 to 3, got 99",
		"--layer-bits 0-4=6/4":      "--layer-bits: want layers 0 to 3, got 0-4",
		"--rotate-keys":             `--rotate-keys: rotation needs backend "blocks"`,
		"--token-scales":            `--token-scales: scales of tokens need backend "blocks"`,
		"--preset lowest --token-scales --axis-key 0": `--token-scales: want keys in groups per channel`,
		"--range-key hqq":                `--range-key: "hqq" needs backend "blocks", got "quanto"`,
		"--code-value int8":              `--code-value: "int8" needs backend "blocks", got "quanto"`,
		"--preset best":                  "--preset: want full, tutorial, quality, balanced, smallest, lower or lowest, got \"best\"",
		"--preset full --nbits 4":        "--nbits describes a quantized cache",
		"--preset lowest --nbits-key 99": "--nbits-key: want 1, 2, 3, 4, 5, 6 or 8, got 99",
	} {
		var f CacheFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Register(fs)
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		_, err := f.Config(fs, model)
		if !usererr.Is(err) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "kvq.") {
			t.Errorf("%s: %v, want it to begin with %q and no name of Go", args, err, want)
		}
	}
}

// The names of --preset are those of the library, and two more.
func TestPresetNames(t *testing.T) {
	var own []string
	for _, name := range PresetNames() {
		c, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != FullName && name != TutorialName {
			own = append(own, name)
		}
		if c.Quantized() == (name == FullName) {
			t.Errorf("%s: %s", name, c)
		}
	}
	if slices.Sort(own); !slices.Equal(own, kvq.Presets()) {
		t.Errorf("%q, the library has %q", own, kvq.Presets())
	}
}
