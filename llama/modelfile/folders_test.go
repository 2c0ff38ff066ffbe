package modelfile

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

// Folders that versions 4 and 5 of transformers saved, changed and saved again are read as version
// 5 reads them (scripts/make-file-goldens.py): the same frequencies, weights, ends and tokens.
func TestFoldersOfTransformers(t *testing.T) {
	file, err := os.Open("testdata/folders.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Texts []string
		Cases []struct {
			Name  string
			Files map[string][]byte
			Want  struct {
				Refused      string
				Frequencies  []float32
				Weights      map[string]float64 // the sum of the elements of each
				EOS          []int
				IDs          [][]int32
				ChatTemplate string `json:"chat_template"`
			}
		}
	}
	if err := json.NewDecoder(unzipped).Decode(&golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) < 70 {
		t.Fatalf("%d folders, want at least 70", len(golden.Cases))
	}
	for _, c := range golden.Cases {
		t.Run(c.Name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range c.Files {
				writeFile(t, data, dir, name)
			}
			f, err := Open(dir)
			if c.Want.Refused != "" {
				wantLine(t, err, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := f.Config().RotaryFrequencies()
			if len(got) != len(c.Want.Frequencies) {
				t.Fatalf("%d frequencies, want %d", len(got), len(c.Want.Frequencies))
			}
			for i, v := range got {
				if want := c.Want.Frequencies[i]; math.Abs(float64(v/want-1)) > 1e-6 {
					t.Errorf("frequency %d is %g, want %g", i, v, want)
				}
			}
			if got := f.Config().EOS; !slices.Equal(got, c.Want.EOS) {
				t.Errorf("eos %v, want %v", got, c.Want.EOS)
			}
			all := mustRead(t, f, As{DType: dtypes.Float32})
			if len(all) != len(c.Want.Weights) {
				t.Errorf("%d weights, want %d", len(all), len(c.Want.Weights))
			}
			for name, values := range all {
				sum := 0.0
				for _, v := range values {
					sum += float64(v)
				}
				if want := c.Want.Weights[name]; math.Abs(sum-want) > 1e-9*float64(len(values)) {
					t.Errorf("%s: sum %g, want %g", name, sum, want)
				}
			}
			if c.Want.IDs == nil {
				return
			}
			tok, err := f.Tokenizer()
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range golden.Texts {
				if got := tok.Encode(text); !slices.Equal(got, c.Want.IDs[i]) {
					t.Errorf("Encode(%q) = %v, want %v", text, got, c.Want.IDs[i])
				}
			}
			if got := tok.ChatTemplate(); got != c.Want.ChatTemplate {
				t.Errorf("chat template %q, want %q", got, c.Want.ChatTemplate)
			}
		})
	}
}
