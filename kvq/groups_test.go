package kvq_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/kvq"
)

func headsOf(dim int) kvq.Shape {
	return kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: dim, Capacity: 512, DType: dtypes.Float32}
}

// Group sizes by hand: the largest divisor, or one of at least half of it whose codes fill words.
func TestFor(t *testing.T) {
	blocks := kvq.Config{Backend: kvq.Blocks, NBits: 3}
	for _, c := range []struct {
		name       string
		config     kvq.Config
		dim        int
		key, value int
	}{
		{"32 divides", kvq.Tutorial(), 128, 32, 32},
		{"32 divides 96", kvq.Tutorial(), 96, 32, 32},
		{"shorter heads", kvq.Tutorial(), 16, 16, 16},
		{"80 = 4·20", kvq.Tutorial(), 80, 20, 20},
		{"112 = 4·28", kvq.Tutorial(), 112, 28, 28},
		// 25·4 bits do not fill bytes, 20·4 do; values lie along tokens and always do
		{"100", kvq.Tutorial(), 100, 20, 25},
		{"a prime", kvq.Tutorial(), 17, 17, 17},
		{"a larger prime", kvq.Tutorial(), 37, 1, 1},
		// 3 bits are planes of 2 and 1: 20·1 do not fill bytes, and 8 is less than half of 20
		{"3 bits", kvq.Config{Backend: kvq.Blocks, NBits: 3, QGroupSize: 32}, 40, 20, 20},
		{"no size", blocks, 96, 48, 48},
		{"groups along tokens", kvq.Config{Backend: kvq.Blocks, AxisKey: kvq.PerChannel, QGroupSize: 32}, 20, 32, 20},
		{"sizes of their own", kvq.Config{Backend: kvq.Blocks, QGroupSizeKey: 64, QGroupSizeValue: 24}, 80, 40, 20},
		{"codes without groups", kvq.Config{Backend: kvq.Blocks, QuantizerKey: kvq.Int8, QGroupSize: 32}, 24, 32, 24},
	} {
		got := c.config.For(c.dim)
		if key, value := got.GroupSizes(); key != c.key || value != c.value {
			t.Errorf("%s: groups of %d and %d for heads of %d, want %d and %d", c.name, key, value, c.dim, c.key, c.value)
		}
		if err := got.Validate(c.dim); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if again := got.For(c.dim); again != got {
			t.Errorf("%s: %+v, once more %+v", c.name, got, again)
		}
		if key, value := c.config.GroupSizes(); key == c.key && value == c.value && got != c.config {
			t.Errorf("%s: %+v fits and became %+v", c.name, c.config, got)
		}
	}
	if got := (kvq.Config{}).For(40); got != (kvq.Config{}) {
		t.Errorf("full precision became %+v", got)
	}
}

// The tutorial's configuration and every preset go with every head dimension, and the plan says
// which groups are used.
func TestNamedConfigurationsFitEveryHead(t *testing.T) {
	for dim := 1; dim <= 600; dim++ {
		named := map[string]kvq.Config{"tutorial": kvq.Tutorial(), "no size": {Backend: kvq.Quanto, ResidualLength: 8}}
		for _, name := range kvq.Presets() {
			named[name], _ = kvq.Preset(name)
			fitted, err := kvq.PresetFor(name, dim)
			if err != nil || fitted != named[name].For(dim) {
				t.Errorf("heads of %d, %s: %+v (error %v), want %+v", dim, name, fitted, err, named[name].For(dim))
			}
		}
		for name, config := range named {
			plan, err := kvq.New(config, headsOf(dim))
			if err != nil {
				t.Errorf("heads of %d, %s: %v", dim, name, err)
				continue
			}
			if got := plan.Config(); got != config.For(dim) || dim%64 == 0 && got != config {
				t.Errorf("heads of %d, %s: %+v, want %+v", dim, name, got, config.For(dim))
			}
			key, value := plan.Config().GroupSizes()
			if config.AxisKey == kvq.PerToken && dim%key != 0 || dim%value != 0 {
				t.Errorf("heads of %d, %s: groups of %d and %d", dim, name, key, value)
			}
		}
	}
}

// Other sizes that do not divide are refused, with the one that does.
func TestGroupsThatDoNotDivide(t *testing.T) {
	preset, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	preset.ResidualLength = 8
	for _, c := range []struct {
		config kvq.Config
		dim    int
		want   string
	}{
		{kvq.Config{Backend: kvq.Quanto, QGroupSize: 48, ResidualLength: 4}, 64, "QGroupSizeKey: want a divisor of the head dimension 64, got 48: take 32 (kvq.Config.For)"},
		{kvq.Config{Backend: kvq.Quanto, QGroupSizeKey: 8, QGroupSizeValue: 32, ResidualLength: 4}, 40, "QGroupSizeValue: want a divisor of the head dimension 40, got 32: take 20 (kvq.Config.For)"},
		{preset, 96, "QGroupSizeValue: want a divisor of the head dimension 96, got 64: take 48 (kvq.Config.For)"},
	} {
		_, err := kvq.New(c.config, headsOf(c.dim))
		if !errors.Is(err, kvq.ErrInput) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v for heads of %d: error %v, want %q", c.config, c.dim, err, c.want)
		}
		if _, err := kvq.New(c.config.For(c.dim), headsOf(c.dim)); err != nil {
			t.Errorf("fitted: %v", err)
		}
	}
	if _, err := kvq.PresetFor("fast", 64); !errors.Is(err, kvq.ErrInput) {
		t.Errorf("PresetFor of a name that is none: error %v", err)
	}
}
