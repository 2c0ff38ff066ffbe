// Package randomllama writes models of Llama-2's layout with random weights: a folder as
// transformers has them, with the weights as sharded safetensors of float16. They say nothing worth
// reading, and take the time and the memory of the real one.
package randomllama

import (
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"github.com/gomlx/compute/dtypes/float16"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Shape is a model's sizes.
type Shape struct {
	Layers, Hidden, Intermediate, Heads, KVHeads, Vocabulary, Context int
}

// Llama2 is Llama-2-7B's shape with layers, heads and widths divided by scale, which divides 32;
// head dim and vocabulary stay.
func Llama2(scale int) (Shape, error) {
	if scale < 1 || 32%scale != 0 {
		return Shape{}, usererr.New("--scale %d, want 1, 2, 4, 8, 16 or 32", scale)
	}
	return Shape{Layers: 32 / scale, Hidden: 4096 / scale, Intermediate: 11008 / scale, Heads: 32 / scale, KVHeads: 32 / scale,
		Vocabulary: 32000, Context: 4096}, nil
}

// tensor is one of the model's: normal numbers, or ones for the weights of a norm.
type tensor struct {
	name string
	dims []int
	ones bool
}

func (t tensor) bytes() int64 {
	n := int64(2)
	for _, d := range t.dims {
		n *= int64(d)
	}
	return n
}

// tensors lists a model's by the names of transformers, in the order of its shards.
func (s Shape) tensors() []tensor {
	kv := s.Hidden / s.Heads * s.KVHeads
	list := []tensor{{"model.embed_tokens.weight", []int{s.Vocabulary, s.Hidden}, false}}
	for i := range s.Layers {
		for _, t := range []tensor{
			{"input_layernorm", []int{s.Hidden}, true}, {"mlp.down_proj", []int{s.Hidden, s.Intermediate}, false},
			{"mlp.gate_proj", []int{s.Intermediate, s.Hidden}, false}, {"mlp.up_proj", []int{s.Intermediate, s.Hidden}, false},
			{"post_attention_layernorm", []int{s.Hidden}, true}, {"self_attn.k_proj", []int{kv, s.Hidden}, false},
			{"self_attn.o_proj", []int{s.Hidden, s.Hidden}, false}, {"self_attn.q_proj", []int{s.Hidden, s.Hidden}, false},
			{"self_attn.v_proj", []int{kv, s.Hidden}, false},
		} {
			list = append(list, tensor{fmt.Sprintf("model.layers.%d.%s.weight", i, t.name), t.dims, t.ones})
		}
	}
	return append(list, tensor{"model.norm.weight", []int{s.Hidden}, true}, tensor{"lm_head.weight", []int{s.Vocabulary, s.Hidden}, false})
}

// Write makes the folder dir with config.json, the index and so many shards, each written as it is
// drawn: no more than a few megabytes are in memory. Files get their names when they are whole.
func Write(dir string, s Shape, shards int, seed uint64) error {
	list := s.tensors()
	if shards < 1 || shards > len(list) {
		return usererr.New("%d shards, want 1 to %d, the number of tensors", shards, len(list))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var total int64
	for _, t := range list {
		total += t.bytes()
	}
	index := map[string]string{}
	groups := make([][]tensor, shards)
	var before int64
	for i, t := range list {
		// By size, and so that none is left without a tensor.
		shard := max(int(before*int64(shards)/total), shards-(len(list)-i))
		before += t.bytes()
		groups[shard] = append(groups[shard], t)
		index[t.name] = shardName(shard, shards)
	}
	var wait sync.WaitGroup
	failed := make([]error, shards)
	for i, group := range groups {
		wait.Go(func() {
			failed[i] = writeFile(filepath.Join(dir, shardName(i, shards)), func(w io.Writer) error {
				return writeShard(w, group, rand.New(rand.NewPCG(seed, uint64(i))))
			})
		})
	}
	wait.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	err := writeJSON(filepath.Join(dir, "model.safetensors.index.json"), map[string]any{
		"metadata": map[string]any{"total_size": total}, "weight_map": index,
	})
	if err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "config.json"), map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "torch_dtype": "float16", "hidden_act": "silu",
		"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": false, "rms_norm_eps": 1e-5,
		"hidden_size": s.Hidden, "intermediate_size": s.Intermediate, "num_hidden_layers": s.Layers, "num_attention_heads": s.Heads,
		"num_key_value_heads": s.KVHeads, "vocab_size": s.Vocabulary, "max_position_embeddings": s.Context,
	})
}

// Tokenizer copies a gzipped tokenizer.json into the folder.
func Tokenizer(dir, gzipped string) error {
	file, err := os.Open(gzipped)
	if err != nil {
		return usererr.New("the tokenizer: %w", err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return usererr.New("the tokenizer %s: want a gzipped tokenizer.json: %w", gzipped, err)
	}
	return writeFile(filepath.Join(dir, "tokenizer.json"), func(w io.Writer) error {
		_, err := io.Copy(w, unzipped)
		return err
	})
}

func shardName(i, shards int) string {
	return fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
}

// writeShard writes one safetensors file: https://huggingface.co/docs/safetensors
func writeShard(w io.Writer, list []tensor, random *rand.Rand) error {
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var at int64
	for _, t := range list {
		header[t.name] = map[string]any{"dtype": "F16", "shape": t.dims, "data_offsets": []int64{at, at + t.bytes()}}
		at += t.bytes()
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)); err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for _, t := range list {
		for left := t.bytes(); left > 0; {
			part := block[:min(left, int64(len(block)))]
			if t.ones {
				for i := 0; i < len(part); i += 2 {
					binary.LittleEndian.PutUint16(part[i:], float16.FromFloat32(1).Bits())
				}
			} else {
				draw(part, random)
			}
			if _, err := w.Write(part); err != nil {
				return err
			}
			left -= int64(len(part))
		}
	}
	return nil
}

// draw fills block with numbers with the spread that Llama's weights begin with.
func draw(block []byte, random *rand.Rand) {
	var four uint64
	for i := 0; i+1 < len(block); i += 2 {
		if i%8 == 0 {
			four = random.Uint64()
		}
		binary.LittleEndian.PutUint16(block[i:], normal[uint16(four)])
		four >>= 16
	}
}

// normal holds float16 numbers at equal steps of the normal distribution's probability, with a
// standard deviation of 0.02: one drawn at random is normally distributed, at the cost of a
// look-up.
var normal = func() *[1 << 16]uint16 {
	var table [1 << 16]uint16
	for i := range table {
		p := (float64(i) + 0.5) / float64(len(table))
		table[i] = float16.FromFloat32(float32(0.02 * math.Sqrt2 * math.Erfinv(2*p-1))).Bits()
	}
	return &table
}()

func writeJSON(path string, content any) error {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, func(w io.Writer) error { _, err := w.Write(data); return err })
}

// writeFile writes to a temporary name and renames.
func writeFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // not there any more, if all went well
	if err := write(file); err != nil {
		_ = file.Close() // the first error counts
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
