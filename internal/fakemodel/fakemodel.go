// Package fakemodel writes made-up model files for tests: folders in Hugging Face's layout, and
// GGUF files.
package fakemodel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Tensor is one tensor of a made-up model file.
type Tensor struct {
	Name  string
	DType dtypes.DType
	Dims  []int // outermost first
	Data  []byte
	// Packed names the blocks in which Data is, for GGUF files, such as "Q4_1"; see Pack. "" stands
	// for DType.
	Packed string
}

// Config is a made-up model: small, with grouped heads and an odd number of everything that may be
// odd.
func Config() map[string]any {
	return map[string]any{
		"model_type": "llama", "vocab_size": 11, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
		"num_attention_heads": 6, "num_key_value_heads": 3, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
		"bos_token_id": 1, "eos_token_id": []int{2, 3}, "tie_word_embeddings": false,
	}
}

// With returns a copy of a config with fields replaced, or removed by the value Absent.
func With(config map[string]any, changes map[string]any) map[string]any {
	out := make(map[string]any)
	for k, v := range config {
		out[k] = v
	}
	for k, v := range changes {
		if v == Absent {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// Absent removes a field: see With.
var Absent = new(struct{ int })

// Random has random elements for tensors of these names and shapes, one after the other.
func Random(dtype dtypes.DType, list []Tensor) []Tensor {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range list {
		list[i].DType = dtype
		n := 1
		for _, d := range list[i].Dims {
			n *= d
		}
		list[i].Data = make([]byte, n*dtype.Size())
		for j := range n {
			Put(dtype, list[i].Data[j*dtype.Size():], float32(random.NormFloat64()))
		}
	}
	return list
}

// Put writes an element.
func Put(dtype dtypes.DType, b []byte, x float32) {
	switch dtype {
	case dtypes.Float32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(x))
	case dtypes.Float16:
		binary.LittleEndian.PutUint16(b, float16.FromFloat32(x).Bits())
	default:
		binary.LittleEndian.PutUint16(b, bfloat16.FromFloat32(x).Bits())
	}
}

// JSON encodes a value.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// WriteFile writes a file below a folder, and returns its path.
func WriteFile(t testing.TB, data []byte, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Safetensors encodes tensors as one safetensors file. Format:
// https://huggingface.co/docs/safetensors
func Safetensors(t testing.TB, list []Tensor) []byte {
	t.Helper()
	names := map[dtypes.DType]string{dtypes.Float32: "F32", dtypes.Float16: "F16", dtypes.BFloat16: "BF16", dtypes.Int8: "I8"}
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var data []byte
	for _, f := range list {
		header[f.Name] = map[string]any{"dtype": names[f.DType], "shape": f.Dims, "data_offsets": []int{len(data), len(data) + len(f.Data)}}
		data = append(data, f.Data...)
	}
	text := JSON(t, header)
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

// Folder writes a folder in Hugging Face's layout with one file of weights.
func Folder(t testing.TB, config map[string]any, list []Tensor) string {
	t.Helper()
	dir := t.TempDir()
	WriteFile(t, JSON(t, config), dir, "config.json")
	WriteFile(t, Safetensors(t, list), dir, "model.safetensors")
	return dir
}

// Metadata is the metadata of a GGUF file for Config.
func Metadata() map[string]any {
	return map[string]any{
		"general.architecture": "llama", "llama.vocab_size": uint32(11), "llama.embedding_length": uint32(24),
		"llama.feed_forward_length": uint32(20), "llama.block_count": uint32(2), "llama.attention.head_count": uint32(6),
		"llama.attention.head_count_kv": uint32(3), "llama.context_length": uint32(64),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.rope.dimension_count": uint32(4),
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.eot_token_id": uint32(3),
	}
}

// GGUF encodes a GGUF file. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
func GGUF(t testing.TB, metadata map[string]any, list []Tensor) []byte {
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
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
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
		case []string:
			put(uint32(9))
			put(uint32(8))
			put(uint64(len(v)))
			for _, one := range v {
				text(one)
			}
		case []int32:
			put(uint32(9))
			put(uint32(5))
			put(uint64(len(v)))
			put(v)
		case bool:
			put(uint32(7))
			put(v)
		default:
			t.Fatalf("GGUF: %s has type %T", key, v)
		}
	}
	types := map[dtypes.DType]uint32{dtypes.Float32: 0, dtypes.Float16: 1, dtypes.BFloat16: 30, dtypes.Int8: 24}
	const alignment = 32
	offset := 0
	for _, f := range list {
		text(f.Name)
		put(uint32(len(f.Dims)))
		for i := range f.Dims {
			put(uint64(f.Dims[len(f.Dims)-1-i])) // innermost first
		}
		if kind, packed := packedTypes[f.Packed]; packed {
			put(kind)
		} else {
			put(types[f.DType])
		}
		put(uint64(offset))
		offset += (len(f.Data) + alignment - 1) / alignment * alignment
	}
	for _, f := range list {
		for b.Len()%alignment != 0 {
			b.WriteByte(0)
		}
		b.Write(f.Data)
	}
	return b.Bytes()
}

// WantLine checks that err is bad input, said in one line that contains all parts.
func WantLine(t *testing.T, err error, parts ...string) {
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

// PermuteLikeLlamaCpp orders rows as convert_hf_to_gguf.py does:
// w.reshape(heads, 2, D/2, in).swapaxes(1, 2).reshape(w.shape).
func PermuteLikeLlamaCpp(data []byte, heads, headDim, rowBytes int) []byte {
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

// packedTypes are the numbers of GGUF's packed element types.
var packedTypes = map[string]uint32{"Q4_1": 3, "Q8_0": 8, "IQ4_NL": 20, "IQ3_S": 21}

// Pack has the float32 elements of a tensor in blocks of 32: Q4_1 is scale, minimum and 16 bytes
// with codes i and 16 + i, Q8_0 is scale and 32 codes. Source: quantize_row_q4_1_ref and
// quantize_row_q8_0_ref in ggml-quants.c of llama.cpp.
func (t Tensor) Pack(kind string) Tensor {
	const block = 32
	var out []byte
	for at := 0; at < len(t.Data); at += 4 * block {
		var x [block]float32
		low, high := float32(math.Inf(1)), float32(math.Inf(-1))
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[at+4*i:]))
			low, high = min(low, x[i]), max(high, x[i])
		}
		half := func(v float32) { out = binary.LittleEndian.AppendUint16(out, float16.FromFloat32(v).Bits()) }
		switch kind {
		case "Q4_1":
			scale := (high - low) / 15
			half(scale)
			half(low)
			code := func(v float32) byte { return byte(min(15, (v-low)/scale+0.5)) }
			for i := range block / 2 {
				out = append(out, code(x[i])|code(x[block/2+i])<<4)
			}
		case "Q8_0":
			scale := max(high, -low) / 127
			half(scale)
			for _, v := range x {
				out = append(out, byte(int8(math.Round(float64(v/scale)))))
			}
		}
	}
	t.Data, t.Packed = out, kind
	return t
}

// Character is the text of token id in the tokenizer that [CharacterTokenizer] writes.
func Character(id int) string { return string(rune(0x4e00 + id)) }

// CharacterTokenizer gives a folder a tokenizer of so many ids, each of which is one character (see
// [Character]), and nothing ever merges: every row of ids is a text, and every text a row of ids.
// template is the chat template.
func CharacterTokenizer(t testing.TB, dir string, vocabulary int, template string) {
	t.Helper()
	ids := map[string]int{}
	for id := range vocabulary {
		ids[Character(id)] = id
	}
	WriteFile(t, JSON(t, map[string]any{
		"decoder": map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"},
		"model":   map[string]any{"type": "BPE", "vocab": ids, "merges": []string{}},
	}), dir, "tokenizer.json")
	WriteFile(t, JSON(t, map[string]any{"chat_template": template}), dir, "tokenizer_config.json")
}
