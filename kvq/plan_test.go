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
