package cli

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Groups that do not divide the head dimension: what nobody asked for by number is fitted, and a
// line says so; a number is refused, and the error says which one fits.
func TestGroupsOfFlags(t *testing.T) {
	for _, c := range []struct {
		args          string
		dim           int
		config        string // what is used; else refused
		note, refused string
	}{
		{"", 64, "quanto 4 bit g32 r64", "", ""},
		{"", 80, "quanto 4 bit g20 r64", "groups of 20, not 32 (the tutorial's --q-group-size): they have to divide the head dimension 80", ""},
		{"", 8, "quanto 4 bit g8 r64", "groups of 8, not 32 (the tutorial's --q-group-size): they have to divide the head dimension 8", ""},
		{"--nbits 2", 40, "quanto 2 bit g20 r64", "groups of 20, not 32 (the tutorial's --q-group-size)", ""},
		{"", 100, "quanto keys 4 bit g20, values 4 bit g25 r64", "keys in groups of 20, not 32 (the tutorial's --q-group-size), values in groups of 25, not 32", ""},
		{"--preset balanced", 128, "blocks keys 5 bit g64 per channel rotated unbiased, values 4 bit g64 rotated unbiased scales float16 r64 4 sinks", "", ""},
		{"--preset balanced --residual-length 8", 96, "blocks keys 5 bit g64 per channel rotated unbiased, values 4 bit g48 rotated unbiased scales float16 r8 4 sinks",
			"values in groups of 48, not 64 (--preset balanced): they have to divide the head dimension 96", ""},
		{"--preset balanced --q-group-size-key 32", 96, "blocks keys 5 bit g32 per channel rotated unbiased, values 4 bit g48 rotated unbiased scales float16 r64 4 sinks",
			"values in groups of 48, not 64 (--preset balanced)", ""},
		// the tutorial's own number, typed
		{"--q-group-size 32 --nbits 4", 40, "quanto 4 bit g20 r64", "groups of 20, not 32 (--q-group-size)", ""},
		{"--q-group-size 16", 80, "quanto 4 bit g16 r64", "", ""},
		{"--q-group-size 48", 64, "", "", "--q-group-size: want a divisor of the head dimension 64, got 48: take 32"},
		{"--q-group-size 5", 8, "", "", "--q-group-size: want a divisor of the head dimension 8, got 5: take 4"},
		{"--preset lowest --q-group-size-value 32", 40, "", "", "--q-group-size-value: want a divisor of the head dimension 40, got 32: take 20"},
	} {
		var f CacheFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Register(fs)
		if err := fs.Parse(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		got, err := f.Config(fs, llama.Config{Layers: 2, KVHeads: 2, HeadDim: c.dim})
		if c.refused != "" {
			if !usererr.Is(err) || err.Error() != c.refused {
				t.Errorf("%q, heads of %d: error %v, want %q", c.args, c.dim, err, c.refused)
			}
			continue
		}
		var note strings.Builder
		f.NoteGroups(&note, fs, got, llama.Config{HeadDim: c.dim})
		if err != nil || got.String() != c.config {
			t.Errorf("%q, heads of %d: %q (error %v), want %q", c.args, c.dim, got, err, c.config)
		}
		lines := strings.Count(note.String(), "\n")
		if (c.note == "") != (note.Len() == 0) || lines > 1 || !strings.Contains(note.String(), c.note) {
			t.Errorf("%q, heads of %d: the note is %q, want %q", c.args, c.dim, note.String(), c.note)
		}
	}
}

// A preset has the bits that were spread over a model's layers, whatever its other flags are, but
// for those that say how many bits there are. No line calls that a matter of groups that divide.
func TestBitsByLayerOfFlags(t *testing.T) {
	model := llama.Config{Layers: 30, HiddenSize: 576, Heads: 9, KVHeads: 3, HeadDim: 64, VocabSize: 49152, RopeTheta: 100000}
	for _, name := range []string{"smallest", "lower", "lowest"} {
		own, err := llama.PresetFor(name, model)
		if err != nil || own.LayerBits == "" {
			t.Fatalf("%s: %q, %v; want one whose layers differ", name, own, err)
		}
		plain, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		for args, want := range map[string]kvq.Config{
			"":                                own,
			"--residual-length 8":             with(own, func(c *kvq.Config) { c.ResidualLength = 8 }),
			"--feedback-key calibrated":       with(own, func(c *kvq.Config) { c.FeedbackKey = kvq.FeedbackCalibrated }),
			"--q-group-size-value 32":         with(own, func(c *kvq.Config) { c.QGroupSizeValue = 32 }),
			"--layer-bits=":                   plain,
			"--layer-bits 0=8/8":              with(plain, func(c *kvq.Config) { c.LayerBits = "0=8/8" }),
			"--nbits-value 8":                 with(plain, func(c *kvq.Config) { c.NBitsValue = 8 }),
			"--q-group-size-key 32 --sinks 1": with(plain, func(c *kvq.Config) { c.QGroupSizeKey, c.Sinks = 32, 1 }),
		} {
			var f CacheFlags
			fs := pflag.NewFlagSet("", pflag.ContinueOnError)
			f.Register(fs)
			if err := fs.Parse(append([]string{"--preset", name}, strings.Fields(args)...)); err != nil {
				t.Fatal(err)
			}
			got, err := f.Config(fs, model)
			if err != nil || got != want {
				t.Errorf("--preset %s %s: %q (%v), want %q", name, args, got, err, want)
			}
			var note strings.Builder
			if f.NoteGroups(&note, fs, got, model); note.Len() > 0 {
				t.Errorf("--preset %s %s: the note is %q, want none", name, args, note.String())
			}
		}
	}
}

func with(c kvq.Config, change func(c *kvq.Config)) kvq.Config {
	change(&c)
	return c
}
