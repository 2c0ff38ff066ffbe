package nb

import "testing"

// The configurations imply as many parameters as the models' pages show.
func TestPublishedConfigurations(t *testing.T) {
	want := map[string]int64{
		"SmolLM2-135M": 134_515_008, "Qwen2.5-7B": 7_615_616_512, "Llama-3.1-8B": 8_030_261_248, "Qwen3-8B": 8_190_735_360,
		"Llama-2-7B": 6_738_415_616, "Llama-2-13B": 13_015_864_320, "Llama-2-70B": 68_976_648_192,
	}
	for _, c := range Published() {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if got := c.ParameterCount(); got != want[c.Name] {
			t.Errorf("%s: %d parameters, published are %d", c.Name, got, want[c.Name])
		}
		if PublishedConfig(c.Name).Layers != c.Layers {
			t.Errorf("%s is not found by its name", c.Name)
		}
	}
	if len(Published()) != len(want) {
		t.Errorf("%d models, %d are known here", len(Published()), len(want))
	}
}
