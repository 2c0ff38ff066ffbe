package llama

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// smallModel is the path of the set-up's GGUF file; the test is skipped where it is not.
func smallModel(t testing.TB) string {
	t.Helper()
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	return path
}

// goldens is the folder of values from transformers; the test is skipped where it is not.
func goldens(t testing.TB) string {
	t.Helper()
	dir, err := asset.Goldens()
	if err != nil {
		t.Skipf("no goldens: %v", err)
	}
	return dir
}

// fakeTensor is one tensor of a made-up model file.
type fakeTensor struct {
	name  string
	dtype dtypes.DType
	dims  []int // outermost first
	data  []byte
}

// fakeConfig is a made-up model: small, with grouped heads and an odd number of everything that may be odd.
func fakeConfig() map[string]any {
	return map[string]any{
		"model_type": "llama", "vocab_size": 11, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
		"num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
		"bos_token_id": 1, "eos_token_id": []int{2, 3}, "tie_word_embeddings": false,
	}
}

// with returns a copy of a config with fields replaced, or removed by the value absent.
func with(config map[string]any, changes map[string]any) map[string]any {
	out := make(map[string]any)
	for k, v := range config {
		out[k] = v
	}
	for k, v := range changes {
		if v == absent {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

var absent = new(struct{ int })

// fakeTensors are random tensors for a configuration, by the names of Hugging Face or of GGUF.
func fakeTensors(t testing.TB, config map[string]any, dtype dtypes.DType, ggufNames bool) []fakeTensor {
	t.Helper()
	c, err := parseConfig(mustJSON(t, config), nil)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var list []fakeTensor
	for _, p := range c.parameters() {
		f := fakeTensor{name: p.hf, dtype: dtype, dims: p.dims}
		if ggufNames {
			f.name = p.gguf
		}
		n := 1
		for _, d := range p.dims {
			n *= d
		}
		for range n {
			b := make([]byte, dtype.Size())
			store(dtype, b, float32(random.NormFloat64()))
			f.data = append(f.data, b...)
		}
		list = append(list, f)
	}
	return list
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, data []byte, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// safetensorsBytes encodes tensors as one safetensors file. Format: https://huggingface.co/docs/safetensors
func safetensorsBytes(t testing.TB, list []fakeTensor) []byte {
	t.Helper()
	names := map[dtypes.DType]string{dtypes.Float32: "F32", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Int8: "I8"}
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var data []byte
	for _, f := range list {
		header[f.name] = map[string]any{"dtype": names[f.dtype], "shape": f.dims, "data_offsets": []int{len(data), len(data) + len(f.data)}}
		data = append(data, f.data...)
	}
	text := mustJSON(t, header)
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

// fakeFolder writes a folder in Hugging Face's layout with one file of weights.
func fakeFolder(t testing.TB, config map[string]any, list []fakeTensor) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, mustJSON(t, config), dir, configFile)
	writeFile(t, safetensorsBytes(t, list), dir, weightsFile)
	return dir
}

// fakeMetadata is the metadata of a GGUF file for fakeConfig.
func fakeMetadata() map[string]any {
	return map[string]any{
		"general.architecture": "llama", "llama.vocab_size": uint32(11), "llama.embedding_length": uint32(24),
		"llama.feed_forward_length": uint32(20), "llama.block_count": uint32(2), "llama.attention.head_count": uint32(6),
		"llama.attention.head_count_kv": uint32(3), "llama.context_length": uint32(64),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.rope.dimension_count": uint32(4),
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.eot_token_id": uint32(3),
	}
}

// ggufBytes encodes a GGUF file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
func ggufBytes(t testing.TB, metadata map[string]any, list []fakeTensor) []byte {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(len(list)))
	put(uint64(len(metadata)))
	for _, key := range sortedKeys(metadata) {
		text(key)
		switch v := metadata[key].(type) {
		case uint32:
			put(uint32(4))
			put(v)
		case float32:
			put(uint32(6))
			put(v)
		case string:
			put(uint32(8))
			text(v)
		default:
			t.Fatalf("ggufBytes: %s has type %T", key, v)
		}
	}
	types := map[dtypes.DType]uint32{dtypes.Float32: 0, dtypes.Float16: 1, dtypes.BFloat16: 30, dtypes.Int8: 24}
	const alignment = 32
	offset := 0
	for _, f := range list {
		text(f.name)
		put(uint32(len(f.dims)))
		for i := range f.dims {
			put(uint64(f.dims[len(f.dims)-1-i])) // innermost first
		}
		put(types[f.dtype])
		put(uint64(offset))
		offset += (len(f.data) + alignment - 1) / alignment * alignment
	}
	for _, f := range list {
		for b.Len()%alignment != 0 {
			b.WriteByte(0)
		}
		b.Write(f.data)
	}
	return b.Bytes()
}

// wantLine checks that err is bad input, said in one line that contains all parts.
func wantLine(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	if !usererr.Is(err) {
		t.Errorf("not marked as bad input: %v", err)
	}
	for _, part := range append(parts, "") {
		if !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("error %q, want it to contain %q", err, part)
		}
	}
	if bytes.ContainsAny([]byte(err.Error()), "\n\r") {
		t.Errorf("error has several lines: %q", err)
	}
}
