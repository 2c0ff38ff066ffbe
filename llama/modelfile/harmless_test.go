package modelfile

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

// The rotary fields of versions 4 and 5 beside each other. Wants are what transformers 5.24 makes
// of them.
func TestRotaryFields(t *testing.T) {
	llama3 := func(more map[string]any) map[string]any {
		return with(map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}, more)
	}
	type fields = map[string]any
	wantLlama3 := func(original int) RopeScaling {
		return RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositions: original}
	}
	linear := func(factor float64) RopeScaling { return RopeScaling{Type: "linear", Factor: factor} }
	for _, c := range []struct {
		fields  fields
		theta   float64
		scaling RopeScaling
	}{
		{fields{}, 10000, RopeScaling{}},
		{fields{"rope_parameters": fields{"rope_type": "default", "rope_theta": 5e4}, "rope_scaling": fields{"rope_type": "linear", "factor": 4.0}, "rope_theta": 2e4}, 2e4, linear(4)},
		{fields{"rope_parameters": fields{"rope_type": "default", "rope_theta": 5e4}, "rope_scaling": fields{"rope_type": "linear", "factor": 4.0}}, 1e4, linear(4)},
		{fields{"rope_parameters": fields{"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}, "rope_scaling": nil, "rope_theta": 2e4}, 5e4, linear(2)},
		{fields{"rope_parameters": fields{"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}, "rope_scaling": fields{}, "rope_theta": 2e4}, 5e4, linear(2)},
		{fields{"rope_parameters": fields{"rope_type": "linear", "factor": 2.0}, "rope_theta": 2e4}, 2e4, linear(2)},
		{fields{"rope_parameters": fields{}, "rope_theta": 2e4}, 2e4, RopeScaling{}},
		{fields{"rope_parameters": nil, "rope_theta": 2e4}, 2e4, RopeScaling{}},
		{fields{"rope_parameters": fields{"type": "linear", "factor": 2.0}}, 1e4, linear(2)},
		{fields{"rope_parameters": fields{"type": "linear", "rope_type": "default", "factor": 2.0}}, 1e4, RopeScaling{}},
		{fields{"rope_scaling": fields{"rope_type": "linear", "factor": 4.0, "rope_theta": 7e4}, "rope_theta": 2e4}, 7e4, linear(4)},
		{fields{"rope_scaling": llama3(nil), "rope_theta": 5e5, "max_position_embeddings": 256}, 5e5, wantLlama3(256)},
		{fields{"rope_scaling": llama3(fields{"original_max_position_embeddings": 128}), "original_max_position_embeddings": 64}, 1e4, wantLlama3(64)},
		{fields{"rope_parameters": llama3(fields{"original_max_position_embeddings": 128, "rope_theta": 4e5})}, 4e5, wantLlama3(128)},
		// Without a type nothing is scaled, whatever factor is there.
		{fields{"rope_scaling": fields{"factor": 2.0}}, 1e4, RopeScaling{}},
		{fields{"rope_scaling": fields{"factor": 2.0, "rope_theta": 5e4}, "rope_theta": 2e4}, 5e4, RopeScaling{}},
		{fields{"rope_parameters": fields{"factor": 2.0, "rope_theta": 5e4}}, 5e4, RopeScaling{}},
		{fields{"rope_scaling": false, "rope_parameters": fields{"rope_type": "linear", "factor": 2.0}}, 1e4, linear(2)},
		{fields{"rope_scaling": []int{}, "rope_theta": 2e4}, 2e4, RopeScaling{}},
		// By the type of layer: transformers knows these for models whose layers differ.
		{fields{"model_type": "qwen3", "rope_parameters": fields{"full_attention": fields{"rope_type": "linear", "factor": 2.0, "rope_theta": 3e4}, "sliding_attention": fields{"rope_type": "default", "rope_theta": 1e4}}}, 3e4, linear(2)},
		{fields{"model_type": "qwen2", "rope_parameters": fields{"full_attention": fields{"rope_type": "linear", "factor": 2.0}}, "rope_theta": 2e4}, 2e4, linear(2)},
		// Not for these: transformers looks only at what is beside the objects.
		{fields{"rope_parameters": fields{"full_attention": fields{"rope_type": "linear", "factor": 2.0, "rope_theta": 3e4}}, "rope_theta": 2e4}, 2e4, RopeScaling{}},
		{fields{"rope_parameters": fields{"full_attention": fields{"rope_type": "linear", "factor": 2.0, "rope_theta": 3e4}, "rope_theta": 6e4, "rope_type": "linear", "factor": 3.0}}, 6e4, linear(3)},
	} {
		got, err := ParseConfig(mustJSON(t, with(fakeConfig(), c.fields)), nil)
		if err != nil {
			t.Errorf("%v: %v", c.fields, err)
			continue
		}
		if got.RopeTheta != c.theta || got.RopeScaling.Type != c.scaling.Type || got.RopeScaling.Factor != c.scaling.Factor ||
			got.RopeScaling.OriginalMaxPositions != c.scaling.OriginalMaxPositions {
			t.Errorf("%v: theta %g and %+v, want %g and %+v", c.fields, got.RopeTheta, got.RopeScaling, c.theta, c.scaling)
		}
	}
}

// A whole file counts before an index and shards beside it, as in transformers.
func TestWholeBeforeShards(t *testing.T) {
	list := fakeTensors(t, fakeConfig(), dtypes.Float32, false)
	whole := fakeFolder(t, fakeConfig(), list)
	want := mustRead(t, mustOpen(t, whole), As{DType: dtypes.Float32})

	// An index that an earlier save left behind, without its shards; then with other ones.
	index := map[string]string{}
	other := fakeTensors(t, fakeConfig(), dtypes.Float32, false)
	for i := range other {
		other[i].Data = make([]byte, len(other[i].Data))
		index[other[i].Name] = "model-00001-of-00001.safetensors"
	}
	writeFile(t, mustJSON(t, map[string]any{"weight_map": index}), whole, indexFile)
	for range 2 {
		for name, values := range mustRead(t, mustOpen(t, whole), As{DType: dtypes.Float32}) {
			if !slices.Equal(values, want[name]) {
				t.Errorf("%s is not the whole file's", name)
			}
		}
		writeFile(t, safetensorsBytes(t, other), whole, "model-00001-of-00001.safetensors")
	}
	// A whole file that is cut off is not passed over for the shards.
	truncate(t, filepath.Join(whole, weightsFile), -7)
	_, err := Open(whole)
	wantLine(t, err, weightsFile, "cut off")
	// Without it the shards count.
	if err := os.Remove(filepath.Join(whole, weightsFile)); err != nil {
		t.Fatal(err)
	}
	for name, values := range mustRead(t, mustOpen(t, whole), As{DType: dtypes.Float32}) {
		if values[0] != 0 {
			t.Errorf("%s is not the shard's", name)
		}
	}
}

func mustOpen(t *testing.T, path string) *Files {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Special tokens that the vocabulary (of 11) does not have are ignored with a warning, and so are
// tables of rotary frequencies.
func TestHarmless(t *testing.T) {
	open := func(t *testing.T, config, generation map[string]any) *Files {
		list := append(fakeTensors(t, fakeConfig(), dtypes.Float32, false),
			fakeTensor{Name: "rotary_emb.inv_freq", DType: dtypes.Float32, Dims: []int{1}, Data: make([]byte, 4)},
			fakeTensor{Name: "model.rotary_emb.inv_freq", DType: dtypes.Float32, Dims: []int{1}, Data: make([]byte, 4)})
		dir := fakeFolder(t, with(fakeConfig(), config), list)
		if generation != nil {
			writeFile(t, mustJSON(t, generation), dir, generationFile)
		}
		return mustOpen(t, dir)
	}
	type fields = map[string]any
	for _, c := range []struct {
		config, generation fields
		bos                int
		eos                []int
		pad                int
		warnings           []string
	}{
		{fields{"bos_token_id": 11, "eos_token_id": []int{2, 99}, "pad_token_id": 11}, nil, -1, []int{2}, 2,
			[]string{"bos_token_id = 11", "eos_token_id = 99", "pad_token_id = 11"}},
		{fields{"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": nil}, nil, 1, nil, 0, []string{"eos_token_id = 32000"}},
		{fields{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1}, fields{"pad_token_id": 4294967295}, 1, []int{2}, 2,
			[]string{"pad_token_id = 4294967295"}},
		{fields{"bos_token_id": 1, "eos_token_id": -7}, nil, 1, nil, 0, []string{"eos_token_id = -7"}},
		{fields{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}, nil, 1, []int{2}, 3, nil},
		{fields{"bos_token_id": 1, "eos_token_id": 2, "rope_scaling": fields{"factor": 2.0}}, nil, 1, []int{2}, 2, []string{"rope_scaling names a factor of 2 and no type"}},
	} {
		f := open(t, c.config, c.generation)
		got := f.Config()
		if got.BOS != c.bos || !slices.Equal(got.EOS, c.eos) || got.PadID != c.pad {
			t.Errorf("%v %v: bos %d, eos %v, pad %d; want %d, %v, %d", c.config, c.generation, got.BOS, got.EOS, got.PadID, c.bos, c.eos, c.pad)
		}
		wantWarnings(t, f, c.warnings)
	}
}

func wantWarnings(t *testing.T, f *Files, want []string) {
	t.Helper()
	got := f.Warnings()
	if len(got) != len(want) {
		t.Errorf("warnings %q, want %q", got, want)
		return
	}
	for i, line := range got {
		if !strings.Contains(line, want[i]) || strings.Contains(line, "\n") {
			t.Errorf("warning %q, want %q", line, want[i])
		}
	}
}

// What converters write into GGUF files: ends of turns by their names alone, ids that are none.
func TestHarmlessGGUF(t *testing.T) {
	list := append(fakeTensors(t, fakeConfig(), dtypes.Float32, true),
		fakeTensor{Name: "rotary_emb.inv_freq", DType: dtypes.Float32, Dims: []int{1}, Data: make([]byte, 4)},
		fakeTensor{Name: "blk.0.attn_rot_embd", DType: dtypes.Float32, Dims: []int{1}, Data: make([]byte, 4)})
	open := func(t *testing.T, change map[string]any) *Files {
		return mustOpen(t, writeFile(t, ggufBytes(t, with(fakeMetadata(), change), list), t.TempDir(), "fake.gguf"))
	}
	const eos, eot, pad = "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.padding_token_id"
	names := func(last ...string) []string {
		return append([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}[:11-len(last)], last...)
	}
	type fields = map[string]any
	for _, c := range []struct {
		change   fields
		eos      []int
		pad      int
		warnings []string
	}{
		{fields{eot: absent, eos: uint32(2), keyTokens: names("<|end_of_text|>", "<|eot_id|>", "<|eom_id|>")}, []int{2, 8, 9, 10}, 2, nil},
		{fields{eot: absent, eos: uint32(10), keyTokens: names("<|endoftext|>", "<|im_end|>")}, []int{10, 9}, 10, nil},
		{fields{eos: uint32(9), eot: uint32(10), keyTokens: names("<|endoftext|>", "<|im_end|>")}, []int{9, 10}, 9, nil},
		{fields{eot: absent, eos: uint32(2), pad: uint32(math.MaxUint32), keyTokens: names()}, []int{2}, 2, []string{pad + " = 4294967295"}},
		{fields{eos: uint32(77), eot: uint32(3), keyTokens: names()}, []int{3}, 3, []string{eos + " = 77"}},
	} {
		f := open(t, c.change)
		if got := f.Config(); !slices.Equal(got.EOS, c.eos) || got.PadID != c.pad {
			t.Errorf("%v: eos %v, pad %d; want %v, %d", c.change, got.EOS, got.PadID, c.eos, c.pad)
		}
		wantWarnings(t, f, c.warnings)
	}
}

// A file for big-endian machines is named as such.
func TestBigEndianGGUF(t *testing.T) {
	data := ggufBytes(t, fakeMetadata(), fakeTensors(t, fakeConfig(), dtypes.Float32, true))
	for _, version := range []uint32{2, 3} {
		binary.BigEndian.PutUint32(data[4:], version)
		_, err := Open(writeFile(t, data, t.TempDir(), "fake.gguf"))
		wantLine(t, err, "fake.gguf", "big-endian")
	}
}

// A token that was added to the tokenizer but not to the model is no reason to refuse either.
func TestAddedBeyondModel(t *testing.T) {
	f := mustOpen(t, fakeFolder(t, with(fakeConfig(), map[string]any{"pad_token_id": 11}), fakeTensors(t, fakeConfig(), dtypes.Float32, false)))
	writeFile(t, mustJSON(t, map[string]any{
		"model":        map[string]any{"type": "BPE", "vocab": map[string]int{"a": 0, "b": 10}},
		"added_tokens": []map[string]any{{"id": 11, "content": "[PAD]", "special": true}}, "decoder": map[string]any{"type": "ByteLevel"},
	}), f.Path(), "tokenizer.json")
	writeFile(t, mustJSON(t, map[string]any{"pad_token": "[PAD]"}), f.Path(), "tokenizer_config.json")
	tok, err := f.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("ab[PAD]"); !slices.Equal(got, []int32{0, 10, 11}) {
		t.Errorf("ids %v, want [0 10 11]", got)
	}
	if got := f.Config().PadID; got >= 11 {
		t.Errorf("the model pads with %d, which it does not have", got)
	}
	wantWarnings(t, f, []string{"pad_token_id = 11"})
}
