package llama

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/testbackend"
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
		HeadDim: 64, RopeTheta: 100000, RMSNormEps: 1e-5, MaxPositions: 8192, TieEmbeddings: true, BOS: 1, EOS: []int{2}, PadID: 2,
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
		w, err := f.LoadWeights(nil, dtypes.Float32)
		if err != nil {
			t.Fatal(err)
		}
		checkShapes(t, f.Config(), w, dtypes.Float32)
		// hidden_0 of the goldens is the embedding of the prompt: its ids are in goldens.json.
		checkEmbedding(t, filepath.Join(goldens(t), name), w)
	}
}

// checkEmbedding compares rows of the embedding with hidden_0 of the goldens, exactly.
func checkEmbedding(t *testing.T, dir string, w *Weights) {
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
	embed, ids := floats(t, w.Embed), g.Inputs["len16"].IDs
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

func checkShapes(t *testing.T, c Config, w *Weights, dtype dtypes.DType) {
	t.Helper()
	for _, p := range c.parameters() {
		got := *p.slot(w)
		if got == nil {
			t.Fatalf("%s was not loaded", p.hf)
		}
		if !slices.Equal(got.Shape().Dimensions, p.dims) || got.DType() != dtype {
			t.Errorf("%s is %s, want %s %v", p.hf, got.Shape(), dtype, p.dims)
		}
	}
	if c.TieEmbeddings && w.Head != nil {
		t.Error("a tied model has a head of its own")
	}
}

// floats gives the elements of a tensor of any of the three dtypes as float32.
func floats(t *testing.T, x *tensors.Tensor) []float32 {
	t.Helper()
	var out []float32
	if err := x.ConstBytes(func(b []byte) {
		n := x.DType().Size()
		for i := 0; i < len(b); i += n {
			out = append(out, load(x.DType(), b[i:]))
		}
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// All formats of a model with the same values give the same weights, whatever the source's dtype and layout.
func TestLoadWeightsFormats(t *testing.T) {
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
				index[f.name] = name
			}
		}
		writeFile(t, mustJSON(t, map[string]any{"weight_map": index}), sharded, indexFile)
		ggufList := fakeTensors(t, config, source, true)
		for i, f := range ggufList {
			if heads := map[string]int{"attn_q.weight": 6, "attn_k.weight": 3}[f.name[min(6, len(f.name)):]]; heads > 0 {
				ggufList[i].data = permuteLikeLlamaCpp(f.data, heads, f.dims[0]/heads, f.dims[1]*source.Size())
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
				var calls int
				var last int64
				w, err := f.LoadWeights(nil, target, WithProgress(func(done, total int64) {
					calls++
					last = total - done
				}))
				if err != nil {
					t.Fatalf("%s %s as %s: %v", source, name, target, err)
				}
				checkShapes(t, f.Config(), w, target)
				if calls != len(list) || last != 0 {
					t.Errorf("%d calls of progress with %d bytes left, want %d and 0", calls, last, len(list))
				}
				for i, p := range f.Config().parameters() {
					got := floats(t, *p.slot(w))
					for j, v := range got {
						b := make([]byte, 4)
						store(target, b, load(source, list[i].data[j*source.Size():]))
						if want := load(target, b); v != want {
							t.Fatalf("%s %s as %s: %s[%d] = %g, want %g", source, name, target, p.hf, j, v, want)
						}
					}
				}
			}
		}
	}
}

// staged is a backend whose device has memory of its own, as a GPU has.
type staged struct{ compute.Backend }

func (staged) HasSharedBuffers() bool { return false }

// Tensors that travel to a device are those that are made in place; an error and the end of a context end the journey.
func TestLoadWeightsStaged(t *testing.T) {
	backend := testbackend.XLA(t)
	list := fakeTensors(t, fakeConfig(), dtypes.BFloat16, false)
	f, err := Open(fakeFolder(t, fakeConfig(), list))
	if err != nil {
		t.Fatal(err)
	}
	inPlace, err := f.LoadWeights(backend, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	uploaded, err := f.LoadWeights(staged{backend}, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range f.Config().parameters() {
		a, b := floats(t, *p.slot(inPlace)), floats(t, *p.slot(uploaded))
		if !slices.Equal(a, b) || a[0] != load(dtypes.BFloat16, list[i].data) {
			t.Errorf("%s differs", p.hf)
		}
	}
	for stop := range len(list) {
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		w, err := f.LoadWeights(staged{backend}, dtypes.Float32, WithContext(ctx), WithProgress(func(int64, int64) {
			if calls++; calls == stop+1 {
				cancel()
			}
		}))
		cancel()
		// One tensor more may have been on its way.
		if stop+2 < len(list) && (!errors.Is(err, context.Canceled) || w != nil || calls > stop+2) {
			t.Errorf("cancelled after %d tensors: error %v after %d", stop+1, err, calls)
		}
	}
	truncate(t, filepath.Join(f.Path(), weightsFile), -100)
	_, err = f.LoadWeights(staged{backend}, dtypes.Float32)
	wantLine(t, err, "lm_head.weight", "ends early")
}

// permuteLikeLlamaCpp orders rows as convert_hf_to_gguf.py does:
// w.reshape(heads, 2, D/2, in).swapaxes(1, 2).reshape(w.shape).
func permuteLikeLlamaCpp(data []byte, heads, headDim, rowBytes int) []byte {
	out := make([]byte, 0, len(data))
	for h := range heads {
		for i := range headDim / 2 {
			for half := range 2 {
				row := h*headDim + half*headDim/2 + i
				out = append(out, data[row*rowBytes:(row+1)*rowBytes]...)
			}
		}
	}
	return out
}

// The smallest permutation by hand: one head of 4 rows in a file is (0a 0b 1a 1b), pairs of neighbours; wanted is
// (0a 1a 0b 1b).
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

// The small model goes to a device; rounding to float16 keeps every value within half a float16 step.
func TestLoadWeightsSmallModelOnDevice(t *testing.T) {
	path, backend := smallModel(t), testbackend.XLA(t)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	exact, err := f.LoadWeights(backend, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	defer exact.Finalize()
	checkShapes(t, f.Config(), exact, dtypes.Float32)
	if got, want := exact.Bytes(), 4*f.Config().ParameterCount(); got != want {
		t.Errorf("weights take %d bytes, want %d", got, want)
	}
	rounded, err := f.LoadWeights(nil, dtypes.Float32, RoundFloat16())
	if err != nil {
		t.Fatal(err)
	}
	defer rounded.Finalize()
	a, b := floats(t, exact.Layers[3].Q), floats(t, rounded.Layers[3].Q)
	changed := 0
	for i := range a {
		if a[i] != b[i] {
			changed++
		}
		if step := math.Max(math.Abs(float64(a[i]))*0x1p-11, 0x1p-25); math.Abs(float64(a[i]-b[i])) > step {
			t.Fatalf("element %d: %g rounded to %g", i, a[i], b[i])
		}
	}
	if changed == 0 {
		t.Error("rounding to float16 changed nothing")
	}
}

// A model without a tokenizer opens all the same: only Tokenizer says so. One whose ids the model does not have is
// refused.
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
