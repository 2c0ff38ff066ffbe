package kvq_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/kvqbook/kvqbook/kvq"
)

// The names promise bits a value, scales and zero points included, whatever the model's heads and
// its dtype. In heads of 64 elements what feedback keeps of a row's prompt is in them too, spread
// over 2,048 tokens.
func TestPresetsKeepToTheirBits(t *testing.T) {
	most := map[string]float64{"quality": 6.5, "balanced": 5, "smallest": 3.35, "lower": 2.85, "lowest": 2.5}
	for _, name := range Presets() {
		config, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, dim := range []int{64, 128, 256} {
			for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16} {
				plan, err := New(config, Shape{Layers: 2, Batch: 1, KVHeads: 2, HeadDim: dim, Capacity: 1024, DType: dtype})
				if err != nil {
					t.Fatalf("%s, heads of %d: %v", name, dim, err)
				}
				bits := plan.BitsPerValue()
				if dim == 64 {
					bits += float64(8*plan.Memory().Metric) / (2048 * 2 * 2 * 2 * 64) // 2 layers, 2 heads, keys and values
				}
				if bits > most[name] || bits < 2 {
					t.Errorf("%s, heads of %d, %s: %v bits a value, promised are at most %v", name, dim, dtype, bits, most[name])
				}
				if fed := plan.Memory().Metric > 0; fed != (config.FeedbackKey == FeedbackQueries) {
					t.Errorf("%s keeps %d bytes of a prompt's queries", name, plan.Memory().Metric)
				}
			}
		}
		if config.Backend != Blocks || config.QuantizerKey == LeastSquares || config.QuantizerValue == LeastSquares {
			t.Errorf("%s is %s: presets keep our window, and no range that is biased", name, config)
		}
	}
	if len(most) != len(Presets()) {
		t.Errorf("presets %q", Presets())
	}
}
