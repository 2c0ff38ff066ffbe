package cli

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
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
