package kvq

import (
	"strings"
	"testing"
)

// FuzzLayerBits feeds the parser of Config.LayerBits: it refuses in one line, or gives overrides
// that mean what the text says.
func FuzzLayerBits(f *testing.F) {
	for _, seed := range []string{"", "0=8/6", "0-1=8/6,29=6/4", "1-0=4/4", "0=8", "a=4/4", "-1=4/4", "0=4/4,", " 3 = 4/4", "99999999999=4/4", "0--1=2/2", "0=4/4/4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		overrides, err := parseLayerBits(text)
		if err != nil {
			if overrides != nil || !strings.HasPrefix(err.Error(), "kvq.Config.LayerBits: want") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: overrides %v, error %q", text, overrides, err)
			}
			return
		}
		if len(overrides) != strings.Count(text, "=") {
			t.Errorf("%q: %d overrides of %d entries", text, len(overrides), strings.Count(text, "="))
		}
		for _, o := range overrides {
			if o.first < 0 || o.last < o.first || o.key < 0 || o.value < 0 {
				t.Errorf("%q: override %+v", text, o)
			}
		}
		// What is parsed is either valid or refused, and then names its fault; and only the layers
		// it names change.
		c := Config{Backend: Blocks, NBits: 4, QGroupSize: 32, LayerBits: text}
		r, err := c.resolve(32)
		if err != nil {
			return
		}
		for layer := range 4 {
			want := 4
			for _, o := range overrides {
				if o.first <= layer && layer <= o.last {
					want = o.key
				}
			}
			if got := r.settings(true, layer).bits; got != want {
				t.Errorf("%q: keys of layer %d have %d bits, wanted %d", text, layer, got, want)
			}
		}
	})
}
