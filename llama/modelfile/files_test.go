package modelfile

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// The configuration as the goldens' README states it: made by transformers from the same file.
func TestOpenSmallModel(t *testing.T) {
	f, err := Open(smallModel(t))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Architecture: "llama", VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3,
		HeadDim: 64, RopeTheta: 100000, RMSNormEps: 1e-5, MaxPositions: 8192, TieEmbeddings: true, BOS: 1, EOS: []int{2, 0, 4}, PadID: 2,
	}
	if diff := cmp.Diff(want, f.Config()); diff != "" {
		t.Errorf("config differs (-want +got):\n%s", diff)
	}
	// 134,515,008 is what transformers counts for SmolLM2-135M.
	if got := f.Config().ParameterCount(); got != 134_515_008 {
		t.Errorf("%d parameters, want 134515008", got)
	}
}

func TestOpenTinyFolders(t *testing.T) {
	for name, kvHeads := range map[string]int{"tiny-llama2": 4, "tiny-llama2-gqa": 2} {
		f, err := Open(filepath.Join(goldens(t), name))
		if err != nil {
			t.Fatal(err)
		}
		want := Config{
			Architecture: "llama", VocabSize: 256, HiddenSize: 64, IntermediateSize: 128, Layers: 2, Heads: 4, KVHeads: kvHeads,
			HeadDim: 16, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 512, BOS: 1, EOS: []int{2}, PadID: 2,
		}
		if diff := cmp.Diff(want, f.Config()); diff != "" {
			t.Errorf("%s: config differs (-want +got):\n%s", name, diff)
		}
		all := mustRead(t, f, As{DType: dtypes.Float32})
		if _, found := all["lm_head.weight"]; !found {
			t.Errorf("%s: no head", name)
		}
		// hidden_0 of the goldens is the embedding of the prompt: its ids are in goldens.json.
		checkEmbedding(t, filepath.Join(goldens(t), name), all["model.embed_tokens.weight"])
	}
}

// checkEmbedding compares rows of the embedding with hidden_0 of the goldens, exactly.
func checkEmbedding(t *testing.T, dir string, embed []float32) {
	t.Helper()
	var g struct {
		Inputs map[string]struct {
			IDs [][]int `json:"input_ids"`
		} `json:"inputs"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "goldens.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	all, err := safetensorsHeader(filepath.Join(dir, "goldens.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	s := all["len16.hidden_0"]
	file, err := openSection(s)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	hidden := make([]byte, s.size)
	if err := readFull(file, hidden, 0); err != nil {
		t.Fatal(err)
	}
	ids := g.Inputs["len16"].IDs
	if len(ids) != 2 || len(ids[0]) != 16 {
		t.Fatalf("goldens.json: inputs of len16 are %v", ids)
	}
	for i, id := range slices.Concat(ids...) {
		for j := range 64 {
			if got, want := embed[id*64+j], load(dtypes.Float32, hidden[4*(i*64+j):]); got != want {
				t.Fatalf("embedding of token %d, column %d: %g, want %g", id, j, got, want)
			}
		}
	}
}

// readAll reads all weights as float32 by their names; read as as says on the way.
func readAll(f *Files, as As) (map[string][]float32, error) {
	all := map[string][]float32{}
	for _, w := range f.Config().Weights() {
		b := make([]byte, w.Elements()*int64(as.DType.Size()))
		if err := f.Read(context.Background(), w, as, b); err != nil {
			return nil, err
		}
		for i := 0; i < len(b); i += as.DType.Size() {
			all[w.HF] = append(all[w.HF], load(as.DType, b[i:]))
		}
	}
	return all, nil
}

func mustRead(t *testing.T, f *Files, as As) map[string][]float32 {
	t.Helper()
	all, err := readAll(f, as)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// All formats of a model with the same values give the same weights, whatever the source's dtype
// and layout.
func TestReadFormats(t *testing.T) {
	config := fakeConfig()
	for _, source := range []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16} {
		list := fakeTensors(t, config, source, false)
		sharded := t.TempDir()
		writeFile(t, mustJSON(t, config), sharded, configFile)
		index := map[string]string{}
		for i, part := range [][]fakeTensor{list[:7], list[7:]} {
			name := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}[i]
			writeFile(t, safetensorsBytes(t, part), sharded, name)
			for _, f := range part {
				index[f.Name] = name
			}
		}
		writeFile(t, mustJSON(t, map[string]any{"weight_map": index}), sharded, indexFile)
		ggufList := fakeTensors(t, config, source, true)
		for i, f := range ggufList {
			if heads := map[string]int{"attn_q.weight": 6, "attn_k.weight": 3}[f.Name[min(6, len(f.Name)):]]; heads > 0 {
				ggufList[i].Data = fakemodel.PermuteLikeLlamaCpp(f.Data, heads, f.Dims[0]/heads, f.Dims[1]*source.Size())
			}
		}
		paths := map[string]string{
			"one file": fakeFolder(t, config, list),
			"shards":   sharded,
			"gguf":     writeFile(t, ggufBytes(t, fakeMetadata(), ggufList), t.TempDir(), "fake.gguf"),
		}
		for name, path := range paths {
			f, err := Open(path)
			if err != nil {
				t.Fatalf("%s %s: %v", source, name, err)
			}
			for _, target := range []dtypes.DType{dtypes.Float32, dtypes.Float16, dtypes.BFloat16} {
				all, err := readAll(f, As{DType: target})
				if err != nil {
					t.Fatalf("%s %s as %s: %v", source, name, target, err)
				}
				if len(all) != len(list) {
					t.Errorf("%d weights, want %d", len(all), len(list))
				}
				for i, w := range f.Config().Weights() {
					got := all[w.HF]
					if len(got)*source.Size() != len(list[i].Data) {
						t.Fatalf("%s has %d elements, want %v", w.HF, len(got), list[i].Dims)
					}
					for j, v := range got {
						b := make([]byte, 4)
						store(target, b, load(source, list[i].Data[j*source.Size():]))
						if want := load(target, b); v != want {
							t.Fatalf("%s %s as %s: %s[%d] = %g, want %g", source, name, target, w.HF, j, v, want)
						}
					}
				}
			}
		}
	}
}

// The smallest permutation by hand: one head of 4 rows in a file is (0a 0b 1a 1b), pairs of
// neighbours; wanted is (0a 1a 0b 1b).
func TestUnpair(t *testing.T) {
	to := unpair(4)
	got := make([]string, 8)
	for row, name := range []string{"0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b"} { // two heads
		got[to(row)] = name
	}
	if want := []string{"0a", "1a", "0b", "1b", "2a", "3a", "2b", "3b"}; !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}

// Rounding to float16 keeps every value within half a float16 step.
func TestReadRoundsToFloat16(t *testing.T) {
	f, err := Open(smallModel(t))
	if err != nil {
		t.Fatal(err)
	}
	var q Weight
	for _, w := range f.Config().Weights() {
		if w.HF == "model.layers.3.self_attn.q_proj.weight" {
			q = w
		}
	}
	read := func(as As) []byte {
		b := make([]byte, 4*q.Elements())
		if err := f.Read(t.Context(), q, as, b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	exact, rounded := read(As{DType: dtypes.Float32}), read(As{DType: dtypes.Float32, RoundFloat16: true})
	changed := 0
	for i := 0; i < len(exact); i += 4 {
		a, b := load(dtypes.Float32, exact[i:]), load(dtypes.Float32, rounded[i:])
		if a != b {
			changed++
		}
		if step := math.Max(math.Abs(float64(a))*0x1p-11, 0x1p-25); math.Abs(float64(a-b)) > step {
			t.Fatalf("element %d: %g rounded to %g", i/4, a, b)
		}
	}
	if changed == 0 {
		t.Error("rounding to float16 changed nothing")
	}
}

// A model without a tokenizer opens all the same: only Tokenizer says so. One whose ids the model
// does not have is refused.
func TestFilesTokenizer(t *testing.T) {
	list := fakeTensors(t, fakeConfig(), dtypes.Float16, false)
	f, err := Open(fakeFolder(t, fakeConfig(), list))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Tokenizer()
	wantLine(t, err, f.Path(), "no tokenizer.json and no tokenizer.model")
	write := func(last int) {
		writeFile(t, mustJSON(t, map[string]any{
			"model": map[string]any{"type": "BPE", "vocab": map[string]int{"a": 0, "b": last}}, "decoder": map[string]any{"type": "ByteLevel"},
		}), f.Path(), "tokenizer.json")
	}
	write(11)
	_, err = f.Tokenizer()
	wantLine(t, err, "ids up to 11", "ends at 10")
	write(10)
	tok, err := f.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("ab"); !slices.Equal(got, []tokenizer.Token{0, 10}) {
		t.Errorf("ids %v, want [0 10]", got)
	}
}
