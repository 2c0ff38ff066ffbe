package modelfile

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

func TestOpenRefusesPaths(t *testing.T) {
	dir := t.TempDir()
	text := writeFile(t, []byte("hello"), dir, "notes.txt")
	fake := writeFile(t, []byte("hello"), dir, "fake.gguf")
	empty := writeFile(t, nil, dir, "empty.gguf")
	for _, c := range []struct {
		path string
		want []string
	}{
		{filepath.Join(dir, "nowhere.gguf"), []string{"nowhere.gguf", "no such file", "want a .gguf file or a folder"}},
		{text, []string{"notes.txt", "want a .gguf file or a folder"}},
		{fake, []string{"fake.gguf", "magic"}},
		{empty, []string{"empty.gguf", "not a complete GGUF file"}},
		{dir, []string{dir, "no config.json"}},
	} {
		_, err := Open(c.path)
		wantLine(t, err, c.want...)
	}
}

func TestOpenRefusesFolders(t *testing.T) {
	good := func(t *testing.T) []fakeTensor { return fakeTensors(t, fakeConfig(), dtypes.Float16, false) }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   []string
	}{
		{"absurd config", func(t *testing.T, dir string) {
			writeFile(t, mustJSON(t, with(fakeConfig(), map[string]any{"num_attention_heads": 0})), dir, configFile)
		}, []string{"config.json", "num_attention_heads = 0"}},
		{"no weights", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, weightsFile)); err != nil {
				t.Fatal(err)
			}
		}, []string{"no model.safetensors", "safetensors"}},
		{"missing tensor", func(t *testing.T, dir string) {
			writeFile(t, safetensorsBytes(t, good(t)[:12]), dir, weightsFile)
		}, []string{`"model.layers.1.self_attn.k_proj.weight" is missing`, "[12 24]"}},
		{"wrong shape", func(t *testing.T, dir string) {
			list := good(t)
			list[2].Dims = []int{12, 48}
			writeFile(t, safetensorsBytes(t, list), dir, weightsFile)
		}, []string{"model.safetensors", `"model.layers.0.self_attn.q_proj.weight"`, "[12 48]", "want [24 24]"}},
		{"wrong dtype", func(t *testing.T, dir string) {
			list := good(t)
			list[1].DType, list[1].Data = dtypes.Int8, list[1].Data[:24]
			writeFile(t, safetensorsBytes(t, list), dir, weightsFile)
		}, []string{`"model.layers.0.input_layernorm.weight"`, "dtype I8", "float16"}},
		{"stranger", func(t *testing.T, dir string) {
			list := append(good(t), fakeTensor{Name: "model.layers.0.self_attn.q_proj.bias", DType: dtypes.Float16, Dims: []int{1}, Data: []byte{0, 0}})
			writeFile(t, safetensorsBytes(t, list), dir, weightsFile)
		}, []string{`"model.layers.0.self_attn.q_proj.bias"`, "does not belong"}},
		{"cut off in the data", func(t *testing.T, dir string) {
			truncate(t, filepath.Join(dir, weightsFile), -7)
		}, []string{"model.safetensors", "cut off", "want"}},
		{"cut off in the header", func(t *testing.T, dir string) {
			truncate(t, filepath.Join(dir, weightsFile), 100)
		}, []string{"model.safetensors", "cut off", "file of 100"}},
		{"cut off at once", func(t *testing.T, dir string) {
			truncate(t, filepath.Join(dir, weightsFile), 3)
		}, []string{"cut off", "3 bytes"}},
		{"other file", func(t *testing.T, dir string) {
			writeFile(t, []byte("PK\x03\x04 this is a zip archive"), dir, weightsFile)
		}, []string{"not a safetensors file"}},
		{"data offsets that lie", func(t *testing.T, dir string) {
			list := good(t)
			list[0].Data = list[0].Data[:10]
			writeFile(t, safetensorsBytes(t, list), dir, weightsFile)
		}, []string{`"model.embed_tokens.weight"`, "10 bytes, want 528"}},
		{"two tensors on the same bytes", func(t *testing.T, dir string) {
			moveTensor(t, dir, "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.k_proj.weight", 0)
		}, []string{"model.safetensors", `"model.layers.0.self_attn.k_proj.weight" and "model.layers.0.self_attn.v_proj.weight"`, "share bytes"}},
		{"two tensors that share an element", func(t *testing.T, dir string) {
			moveTensor(t, dir, "model.layers.0.self_attn.v_proj.weight", "model.layers.0.self_attn.k_proj.weight", -2)
		}, []string{"model.safetensors", "share bytes"}},
		{"index that is none", func(t *testing.T, dir string) {
			withoutWhole(t, dir)
			writeFile(t, []byte(`{"weight_map": {}}`), dir, indexFile)
		}, []string{indexFile, "weight_map"}},
		{"shard that is not there", func(t *testing.T, dir string) {
			withoutWhole(t, dir)
			writeFile(t, []byte(`{"weight_map": {"lm_head.weight": "model-2.safetensors"}}`), dir, indexFile)
		}, []string{"model-2.safetensors", "no such shard", "lm_head.weight"}},
		{"shard outside", func(t *testing.T, dir string) {
			withoutWhole(t, dir)
			writeFile(t, []byte(`{"weight_map": {"lm_head.weight": "../model.safetensors"}}`), dir, indexFile)
		}, []string{"../model.safetensors", "of this folder"}},
		{"index names a tensor that the shard lacks", func(t *testing.T, dir string) {
			withoutWhole(t, dir)
			writeFile(t, []byte(`{"weight_map": {"nothing": "model-1.safetensors"}}`), dir, indexFile)
		}, []string{`"nothing" is missing`, "model-1.safetensors"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := fakeFolder(t, fakeConfig(), good(t))
			if _, err := Open(dir); err != nil {
				t.Fatalf("the folder was to be good before the change: %v", err)
			}
			c.change(t, dir)
			_, err := Open(dir)
			wantLine(t, err, c.want...)
		})
	}
}

// withoutWhole gives the whole file a shard's name.
func withoutWhole(t *testing.T, dir string) {
	t.Helper()
	if err := os.Rename(filepath.Join(dir, weightsFile), filepath.Join(dir, "model-1.safetensors")); err != nil {
		t.Fatal(err)
	}
}

// truncate shortens a file to size bytes, or by -size bytes.
func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if size < 0 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesGGUF(t *testing.T) {
	good := fakeTensors(t, fakeConfig(), dtypes.Float32, true)
	open := func(t *testing.T, metadata map[string]any, list []fakeTensor) error {
		_, err := Open(writeFile(t, ggufBytes(t, metadata, list), t.TempDir(), "fake.gguf"))
		return err
	}
	if err := open(t, fakeMetadata(), good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change map[string]any
		want   []string
	}{
		{"architecture", map[string]any{"general.architecture": "gpt2"}, []string{`architecture "gpt2", want "llama"`}},
		{"absent", map[string]any{"llama.block_count": absent}, []string{`"llama.block_count" is absent`}},
		{"no eps", map[string]any{"llama.attention.layer_norm_rms_epsilon": absent}, []string{"layer_norm_rms_epsilon", "absent"}},
		{"type", map[string]any{"llama.block_count": "two"}, []string{`"llama.block_count" has type string`}},
		{"no heads", map[string]any{"llama.attention.head_count": uint32(0)}, []string{"num_attention_heads = 0"}},
		{"indivisible", map[string]any{"llama.embedding_length": uint32(25)}, []string{"llama.embedding_length = 25", "multiple"}},
		{"huge", map[string]any{"llama.block_count": uint32(1 << 31)}, []string{"num_hidden_layers = 2147483648"}},
		{"partial rotary", map[string]any{"llama.rope.dimension_count": uint32(2)}, []string{"llama.rope.dimension_count = 2", "4"}},
		{"experts", map[string]any{"llama.expert_count": uint32(8)}, []string{"llama.expert_count = 8"}},
		{"part", map[string]any{"split.count": uint32(3)}, []string{"3 parts", "--merge"}},
		{"scaling", map[string]any{"llama.rope.scaling.type": "yarn"}, []string{`"yarn"`, "linear"}},
		{"longer contexts", map[string]any{"llama.rope.scaling.type": "longrope"}, []string{`"longrope"`, "linear"}},
		{"window", map[string]any{"llama.attention.sliding_window": uint32(1 << 31)}, []string{"sliding_window = 2147483648"}},
		{"more layers than tensors", map[string]any{"llama.block_count": uint32(3)}, []string{`"blk.2.attn_norm.weight" is missing`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantLine(t, open(t, with(fakeMetadata(), c.change), good), append(c.want, "fake.gguf")...)
		})
	}
	t.Run("scaling of Qwen", func(t *testing.T) { // its keys begin with its own name
		metadata := map[string]any{}
		for key, value := range with(fakeMetadata(), map[string]any{"llama.rope.scaling.type": "yarn"}) {
			metadata[strings.Replace(key, "llama.", "qwen2.", 1)] = value
		}
		metadata["general.architecture"] = "qwen2"
		wantLine(t, open(t, metadata, good), `qwen2.rope.scaling.type = "yarn"`, "linear")
		delete(metadata, "qwen2.rope.scaling.type")
		wantLine(t, open(t, metadata, good), `"blk.0.attn_q.bias" is missing`)
	})
	t.Run("shape", func(t *testing.T) {
		list := append([]fakeTensor(nil), good...)
		list[0].Dims = []int{24, 11}
		wantLine(t, open(t, fakeMetadata(), list), `"token_embd.weight" has shape [24 11], want [11 24]`)
	})
	t.Run("cut off anywhere", func(t *testing.T) {
		data := ggufBytes(t, fakeMetadata(), good)
		path := filepath.Join(t.TempDir(), "cut.gguf")
		for size := 0; size < len(data)-1; size += 1 + size/37 {
			writeFile(t, data[:size], path)
			_, err := Open(path)
			wantLine(t, err, "cut.gguf")
		}
	})
}

// Llama-3's scaling comes as divisors of the frequencies; what no divisors can be is refused.
func TestGGUFRefusesRopeFactors(t *testing.T) {
	good := fakeTensors(t, fakeConfig(), dtypes.Float32, true)
	open := func(metadata map[string]any, divisors ...float32) error {
		f := fakeTensor{Name: ropeFactorsTensor, DType: dtypes.Float32, Dims: []int{len(divisors)}, Data: make([]byte, 4*len(divisors))}
		for i, v := range divisors {
			store(dtypes.Float32, f.Data[4*i:], v)
		}
		_, err := Open(writeFile(t, ggufBytes(t, metadata, append(slices.Clone(good), f)), t.TempDir(), "fake.gguf"))
		return err
	}
	if err := open(fakeMetadata(), 1, 8); err != nil {
		t.Fatal(err)
	}
	wantLine(t, open(fakeMetadata(), 1, 2, 8), "fake.gguf", ropeFactorsTensor, "[3]", "want F32 [2]")
	for _, bad := range []float32{0, -1, float32(math.NaN()), float32(math.Inf(1))} {
		wantLine(t, open(fakeMetadata(), 1, bad), "fake.gguf", "rope_scaling factor 1", "above 0")
	}
	linear := with(fakeMetadata(), map[string]any{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float32(2)})
	wantLine(t, open(linear, 1, 8), ropeFactorsTensor, `"linear"`, "want one of them")
}

func TestReadRefuses(t *testing.T) {
	list := fakeTensors(t, fakeConfig(), dtypes.Float32, false)
	store(dtypes.Float32, list[3].Data[4*5:], 1e6) // row 0, column 5 of the first layer's keys
	f, err := Open(fakeFolder(t, fakeConfig(), list))
	if err != nil {
		t.Fatal(err)
	}
	_, err = readAll(f, As{DType: dtypes.Float16})
	wantLine(t, err, `"model.layers.0.self_attn.k_proj.weight"`, "row 0, column 5", "too large")
	_, err = readAll(f, As{DType: dtypes.Float32, RoundFloat16: true})
	wantLine(t, err, "too large")
	_, err = readAll(f, As{DType: dtypes.Int8})
	wantLine(t, err, "int8", "want float32, float16 or bfloat16")
	if _, err = readAll(f, As{DType: dtypes.BFloat16}); err != nil {
		t.Errorf("bfloat16 holds 1e6: %v", err)
	}
	// The file shrinks after Open: an error, not a crash as with a memory map.
	truncate(t, filepath.Join(f.Path(), weightsFile), -8)
	_, err = readAll(f, As{DType: dtypes.Float32})
	wantLine(t, err, "lm_head.weight", "ends early")
}

// moveTensor makes a tensor of a folder's single file begin where another one begins, and so many
// bytes behind.
func moveTensor(t *testing.T, dir, name, onto string, behind int64) {
	t.Helper()
	path := filepath.Join(dir, weightsFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	var header map[string]map[string]any
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	ends := func(name string) (first, last int64) {
		list := header[name]["data_offsets"].([]any)
		return int64(list[0].(float64)), int64(list[1].(float64))
	}
	first, last := ends(name)
	to, _ := ends(onto)
	to += behind
	header[name]["data_offsets"] = []int64{to, to + last - first}
	text := mustJSON(t, header)
	writeFile(t, append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data[8+n:]...), dir, weightsFile)
}
