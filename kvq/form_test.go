package kvq_test

import (
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// The tutorial's cache and every preset have the kernel from compute capability 8.0 on, by made-up
// devices, and on this CPU.
func TestForm(t *testing.T) {
	shape := Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: 128, Capacity: 300, DType: dtypes.BFloat16}
	h100 := gpu.Device{Platform: "cuda", Major: 9, Processors: 132}
	t4 := gpu.Device{Platform: "cuda", Major: 7, Minor: 5, Processors: 40}
	configs := map[string]Config{"tutorial": Tutorial()}
	for _, name := range Presets() {
		configs[name] = presetOf(t, name)
	}
	for name, config := range configs {
		p := newPlan(t, config, shape)
		if form, reason := p.FormOn(h100, 1); form != Kernel || reason != "" {
			t.Errorf("%s on an H100: %s (%s), want the kernel", name, form, reason)
		}
		if form, reason := p.FormOn(t4, 1); form != Words || !strings.Contains(reason, "7.5") {
			t.Errorf("%s on a T4: %s (%s), want words for its compute capability", name, form, reason)
		}
		if form, reason := p.Form(testbackend.XLA(t), 1); form != Kernel || reason != "" {
			t.Errorf("%s on a CPU: %s (%s), want the kernel", name, form, reason)
		}
		if form, reason := p.Form(testbackend.XLA(t), 2); form != Words || !strings.Contains(reason, "2 devices") {
			t.Errorf("%s on a CPU of two devices: %s (%s), want words for their number", name, form, reason)
		}
	}
	// One layer that has no kernel decides.
	mixed := newPlan(t, Config{Backend: Quanto, NBits: 4, QGroupSize: 4, ResidualLength: 32, LayerBits: "1=3/3"}, shape)
	if form, reason := mixed.FormOn(h100, 1); form == Kernel || reason == "" {
		t.Errorf("with a layer that has none: %s (%s)", form, reason)
	}
	if form, reason := newPlan(t, Config{}, shape).FormOn(h100, 1); form != Auto || reason != "" {
		t.Errorf("full precision: %s (%s), want auto and no reason", form, reason)
	}
}

// WithForm returns another plan, and leaves this one as it is.
func TestWithForm(t *testing.T) {
	p := newPlan(t, Tutorial(), Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 64, Capacity: 100, DType: dtypes.Float32})
	for _, form := range []Form{Tiles, Words} {
		if got, _ := p.WithForm(form).Form(testbackend.XLA(t), 1); got != form {
			t.Errorf("asked for %s, got %s", form, got)
		}
		larger, err := p.WithForm(form).WithCapacity(200)
		if err != nil {
			t.Fatal(err)
		}
		if larger, err = larger.WithBatch(3); err != nil {
			t.Fatal(err)
		}
		if got, _ := larger.Form(testbackend.XLA(t), 1); got != form {
			t.Errorf("asked for %s, a plan of another capacity and batch got %s", form, got)
		}
	}
	if form, _ := p.Form(testbackend.XLA(t), 1); form != Kernel {
		t.Errorf("the plan itself has %s now", form)
	}
}
