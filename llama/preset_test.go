package llama

import (
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq"
)

// A preset with bits of single layers takes no more bits than it promises, and is one that the
// model can have.
func TestTunedPresetsKeepTheirBits(t *testing.T) {
	most := map[string]float64{"lowest": 2.5, "lower": 2.85, "smallest": 3.35}
	for key, presets := range tuned {
		for name, p := range presets {
			model := Config{Layers: key.layers, HiddenSize: key.hidden, HeadDim: key.headDim, VocabSize: key.vocabulary, RopeTheta: key.theta}
			c, err := PresetFor(name, model)
			if err != nil || !IsTuned(name, model) {
				t.Fatalf("%s: %v", name, err)
			}
			if p.layerBits == "" || c.LayerBits != p.layerBits {
				t.Errorf("%s has the bits %q, want those of the table, %q", name, c.LayerBits, p.layerBits)
			}
			plan, err := kvq.New(c, kvq.Shape{Layers: key.layers, Batch: 1, KVHeads: 1, HeadDim: model.HeadDim, Capacity: 8192, DType: dtypes.Float16})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			metric := float64(8*plan.Memory().Metric) / float64(2048*2*key.layers*model.HeadDim)
			if bits := plan.BitsPerValue() + metric; bits > most[name] || bits < most[name]-0.05 {
				t.Errorf("%s takes %.4f bits a value, want at most %g and hardly less", name, bits, most[name])
			}
		}
	}
}

func TestPresetForOthersIsPlain(t *testing.T) {
	for _, name := range kvq.Presets() {
		got, err := PresetFor(name, Config{Layers: 32, HiddenSize: 4096, HeadDim: 128, VocabSize: 32000, RopeTheta: 10000})
		want, _ := kvq.PresetFor(name, 128)
		if err != nil || got != want {
			t.Errorf("%s of an unknown model is %v (%v), want %v", name, got, err, want)
		}
	}
	if _, err := PresetFor("least", Config{HeadDim: 64}); err == nil {
		t.Error("a preset that is none was found")
	}
}
