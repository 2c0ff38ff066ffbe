package llama

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/dustin/go-humanize"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq"
)

var update = flag.Bool("update", false, "write the table of docs/architectures.md instead of comparing it")

// published are models as their own config.json describes them, with the number of parameters that
// the hub shows.
var published = []struct {
	name                                                  string
	parameters                                            int64
	layers, hidden, inner, heads, kvHeads, headDim, vocab int
	tied                                                  bool
}{
	{"Llama-2-7B", 6_738_415_616, 32, 4096, 11008, 32, 32, 128, 32000, false},
	{"Llama-2-13B", 13_015_864_320, 40, 5120, 13824, 40, 40, 128, 32000, false},
	{"Llama-2-70B", 68_976_648_192, 80, 8192, 28672, 64, 8, 128, 32000, false},
	{"TinyLlama-1.1B", 1_100_048_384, 22, 2048, 5632, 32, 4, 64, 32000, false},
	{"Llama-3-8B, Llama-3.1-8B", 8_030_261_248, 32, 4096, 14336, 32, 8, 128, 128256, false},
	{"Llama-3-70B, Llama-3.1-70B", 70_553_706_496, 80, 8192, 28672, 64, 8, 128, 128256, false},
	{"Llama-3.2-1B", 1_235_814_400, 16, 2048, 8192, 32, 8, 64, 128256, true},
	{"Llama-3.2-3B", 3_212_749_824, 28, 3072, 8192, 24, 8, 128, 128256, true},
	{"Mistral-7B-v0.1", 7_241_732_096, 32, 4096, 14336, 32, 8, 128, 32000, false},
	{"Mistral-7B-v0.3", 7_248_023_552, 32, 4096, 14336, 32, 8, 128, 32768, false},
	{"Mistral-Nemo-12B", 12_247_782_400, 40, 5120, 14336, 32, 8, 128, 131072, false},
	{"SmolLM2-135M", 134_515_008, 30, 576, 1536, 9, 3, 64, 49152, true},
	{"Qwen2.5-0.5B", 494_032_768, 24, 896, 4864, 14, 2, 64, 151936, true},
	{"Qwen2.5-7B", 7_615_616_512, 28, 3584, 18944, 28, 4, 128, 152064, false},
	{"Qwen3-0.6B", 596_049_920, 28, 1024, 3072, 16, 8, 128, 151936, true},
	{"Qwen3-8B", 8_190_735_360, 36, 4096, 12288, 32, 8, 128, 151936, false},
}

// architectureOf is what the model's config.json says.
func architectureOf(model string) string {
	for _, name := range []string{"Mistral", "Qwen2", "Qwen3"} {
		if strings.HasPrefix(model, name) {
			return strings.ToLower(name)
		}
	}
	return "llama"
}

// The table of sizes in docs/architectures.md is what the program computes: the parameters that its
// configurations imply are those published, and the bytes are those of its own plans. `go test
// ./llama -run Sizes -update` writes it.
func TestSizesInTheDocs(t *testing.T) {
	balanced, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	table.WriteString("| model | parameters | layers | hidden | heads | KV heads | head dim | vocabulary | weights, float16 | cache per token, float16 | balanced |\n")
	table.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range published {
		c := Config{Architecture: architectureOf(p.name), VocabSize: p.vocab, HiddenSize: p.hidden, IntermediateSize: p.inner, Layers: p.layers,
			Heads: p.heads, KVHeads: p.kvHeads, HeadDim: p.headDim, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 4096,
			TieEmbeddings: p.tied, BOS: -1}
		if err := c.Validate(); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		if got := c.ParameterCount(); got != p.parameters {
			t.Errorf("%s: %d parameters, published are %d", p.name, got, p.parameters)
		}
		perToken := func(cache kvq.Config) string {
			plan, err := kvq.New(cache, kvq.Shape{Layers: c.Layers, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: 4096, DType: dtypes.Float16})
			if err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
			return humanize.IBytes(uint64(float64(2*c.Layers*c.KVHeads*c.HeadDim) * plan.BitsPerValue() / 8))
		}
		fmt.Fprintf(&table, "| %s | %s | %d | %d | %d | %d | %d | %s | %s | %s | %s |\n", p.name, humanize.Comma(c.ParameterCount()), c.Layers,
			c.HiddenSize, c.Heads, c.KVHeads, c.HeadDim, humanize.Comma(int64(c.VocabSize)), fmt.Sprintf("%.2f GiB", float64(2*c.ParameterCount())/(1<<30)),
			perToken(kvq.Config{}), perToken(balanced))
	}

	const path, begin, end = "../docs/architectures.md", "<!-- sizes: written by TestSizesInTheDocs -->\n", "<!-- end -->"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := bytes.Cut(doc, []byte(begin))
	old, after, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		t.Fatalf("%s: want the table between %q and %q", path, begin, end)
	}
	switch {
	case string(old) == table.String():
	case *update:
		if err := os.WriteFile(path, []byte(string(before)+begin+table.String()+end+string(after)), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has\n%s\nwant\n%s", path, old, table.String())
	}
}

// Every golden of testdata/arch has a line in the docs, by the name of its test.
func TestArchitecturesInTheDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/architectures.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range shapeGoldens(t) {
		if !bytes.Contains(doc, []byte("`TestArchitectures/"+name+"`")) {
			t.Errorf("docs/architectures.md does not name TestArchitectures/%s", name)
		}
	}
}
