package llama

import (
	"slices"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// layoutsOf are how the weights of a model lie, as they are on the devices.
func layoutsOf(m *Model) (list []layout) {
	for _, s := range m.weights {
		list = append(list, s.layout())
	}
	return list
}

// The layouts of a model that is not loaded are those that it has when it is.
func TestWeightLayouts(t *testing.T) {
	for _, devices := range []int{1, 2} {
		for _, name := range tinyNames {
			m := shardedModel(t, name, devices)
			sketch, err := newModel(m.Backend(), m.config, m.dtype, devices)
			if err != nil {
				t.Fatal(err)
			}
			got, want := sketch.weightLayouts(), layoutsOf(m)
			if !slices.EqualFunc(got, want, func(a, b layout) bool { return a.axis == b.axis && a.shape.Equal(b.shape) }) {
				t.Errorf("%s on %d devices: %v, want %v", name, devices, got, want)
			}
		}
	}
}

// Weights that stay packed are laid out as they are when they are loaded; package fit counts them
// by that.
func TestPackedWeightLayouts(t *testing.T) {
	backend := testbackend.XLA(t)
	f, err := Open(smallModel(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.Load(backend, LoadOptions{Weights: PackedWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	got := weightLayouts(m.config, m.dtype, 1, true)
	if want := layoutsOf(m); !slices.EqualFunc(got, want, func(a, b layout) bool { return a.axis == b.axis && a.shape.Equal(b.shape) }) {
		t.Fatalf("%v, want %v", got, want)
	}
}
