package benchcmd

import "testing"

// Shapes have as many parameters as the models, by their cards on the hub.
func TestRandomModelsAreTheModels(t *testing.T) {
	for name, want := range map[string]int64{"smollm2": 134_515_008, "llama2-7b": 6_738_415_616, "llama3-8b": 8_030_261_248} {
		shape, err := randomModel(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := int64(shape.ParameterCount()); got != want {
			t.Errorf("%s has %d parameters, want %d", name, got, want)
		}
	}
}
