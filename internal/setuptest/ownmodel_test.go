package setuptest

import (
	"fmt"
	"strings"
	"testing"
)

// The notebook on one's own model with another model, hardly trained, another text and prompt, and
// weights that were not trained again.
func TestSixthNotebookEdited(t *testing.T) {
	const prompt, length = 20, 96
	load := "%%\nfmt.Println(\"loaded\", nb.LoadWeights(\"weights\", made()).NumParameters())"
	cells := edited(t, "06-in-your-own-model.ipynb", []edit{
		{"var text = texts.Story", `var text = strings.Repeat("one two three four five six seven ", 20)`},
		{"Model{Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 32}", "Model{Layers: 1, Heads: 4, KVHeads: 2, HeadDim: 32}"},
		{"const steps = 1000", "const steps = 30"},
		{"const length = 128", fmt.Sprint("const length = ", length)},
		{"const prompt = 32", fmt.Sprint("const prompt = ", prompt)},
	}, []string{"exercise."}, load, "const steps = 31", load)

	if got := output(t, cells, "knows nothing: loss")[0]; !strings.HasPrefix(got, `680 bytes: "one two three`) {
		t.Errorf("another text: %q", got)
	}
	if got := output(t, cells, "counted %d")[0]; !strings.Contains(got, "ratio 1.000") {
		t.Errorf("weights of another model: %q", got)
	}
	// what the model knows is another question; a cache changes none of it
	if got, want := output(t, cells, "with a cache and without")[0], fmt.Sprintf("the same %d of %d bytes", length-prompt, length-prompt); !strings.Contains(got, want) {
		t.Errorf("another prompt: %q, want %q", got, want)
	}
	if got := output(t, cells, "bytes expected")[0]; strings.Count(got, "| 1.000 |") != 4 {
		t.Errorf("bytes: %q", got)
	}
	if got, want := output(t, cells, "likeliest bytes that agree")[0], fmt.Sprintf("| full precision | %d of %d | %d of %d |", length-prompt, length-prompt, length-prompt, length-prompt); !strings.Contains(got, want) {
		t.Errorf("agreement: %q, want %q", got, want)
	}
	loads := output(t, cells, `fmt.Println("loaded"`)
	want := "out of date: \"weights\" was made with Steps 30, and now it is 31. Run the cell that makes it again.\n"
	if !strings.HasPrefix(loads[0], "loaded ") || loads[1] != want {
		t.Errorf("loads: %q", loads)
	}
}
