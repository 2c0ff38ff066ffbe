package kvq_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"

	. "github.com/kvqbook/kvqbook/kvq"
)

// The axis of the heads is the one that is twice as long where there are twice as many heads, and
// an array without one does not change.
func TestHeadAxes(t *testing.T) {
	configs := map[string]Config{
		"full precision": {},
		"tutorial":       Tutorial(),
		"hqq":            {Backend: HQQ, NBits: 3, ResidualLength: 8},
		"int8":           {Backend: Blocks, QuantizerKey: Int8, QuantizerValue: Float8, Sinks: 2},
	}
	for _, name := range Presets() {
		configs[name] = presetOf(t, name)
	}
	for name, config := range configs {
		shape := Shape{Layers: 2, Batch: 3, KVHeads: 2, HeadDim: 128, Capacity: 200, DType: dtypes.BFloat16}
		plan := newPlan(t, config, shape)
		shape.KVHeads *= 2
		twice := newPlan(t, config, shape).Shapes()
		axes := plan.HeadAxes()
		if len(axes) != len(twice) {
			t.Fatalf("%s: %d axes of %d arrays", name, len(axes), len(twice))
		}
		for i, a := range plan.Arrays() {
			want := -1
			for axis, n := range a.Shape.Dimensions {
				if twice[i].Dim(axis) == 2*n {
					want = axis
				}
			}
			if axes[i] != want {
				t.Errorf("%s: %s %s is cut along axis %d, want %d", name, a.Name, a.Shape, axes[i], want)
			}
		}
	}
}

// An iteration of a flush has room for a row's whole window, wherever its block begins, as far as
// there are slots and the bound allows it.
func TestFlushSlots(t *testing.T) {
	perChannel := func(c Config) Config { c.AxisKey, c.AxisValue = PerChannel, PerChannel; return c }
	quanto := func(residual int) Config {
		return Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: residual}
	}
	for _, c := range []struct {
		name           string
		config         Config
		capacity, want int
	}{
		{"31 tokens of a block and 64 more", quanto(64), 300, 96},
		{"a window of 2 may cross into the next block", quanto(2), 300, 64},
		{"a window of 1 is one of 2", quanto(1), 300, 64},
		{"three blocks of codes", quanto(128), 90, 96},
		{"the bound", quanto(128), 300, 128},
		{"whole blocks alone", Config{Backend: Blocks, NBits: 4, QGroupSize: 32, ResidualLength: 64}, 300, 32},
		{"groups of tokens", perChannel(quanto(64)), 300, 32},
	} {
		shape := Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 32, Capacity: c.capacity, DType: dtypes.Float32}
		if got := newPlan(t, c.config, shape).Inside().FlushSlots; got != c.want {
			t.Errorf("%s: %d slots, want %d", c.name, got, c.want)
		}
	}
}
