package modelfile

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// requireHarmless opens a model and reads all of it: each step is refused in one line of bad input,
// or works. What opens has a valid configuration.
func requireHarmless(t *testing.T, path string) {
	f, err := Open(path)
	if err != nil {
		requireLine(t, "Open", err)
		return
	}
	c := f.Config()
	if err := c.Validate(); err != nil {
		t.Errorf("opened, but the configuration is not valid: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.StoredBytes(); !info.IsDir() && n > info.Size() {
		t.Errorf("%d bytes of weights in a file of %d", n, info.Size())
	}
	for _, as := range []As{{DType: dtypes.Float32}, {DType: dtypes.Float16}, {DType: dtypes.BFloat16, RoundFloat16: true}} {
		for _, w := range c.Weights() {
			// Packed types take 16 times less in the file than in memory at most.
			if w.Elements() > 64*max(1, f.StoredBytesOf(w)) {
				t.Fatalf("%s: %d elements from %d bytes", w.HF, w.Elements(), f.StoredBytesOf(w))
			}
			if err := f.Read(t.Context(), w, as, make([]byte, w.Elements()*int64(as.DType.Size()))); err != nil {
				requireLine(t, "Read", err)
				break // too large for float16, say
			}
		}
	}
	if f.Packable() == nil {
		for _, w := range c.Weights() {
			if len(w.Dims) == 2 {
				if _, err := f.PackedRows(t.Context(), w, 0, w.Dims[0], nil); err != nil {
					requireLine(t, "PackedRows", err)
				}
			}
		}
	}
	tok, err := f.Tokenizer()
	if err != nil {
		requireLine(t, "Tokenizer", err)
		return
	}
	for _, id := range tok.Encode("a b  <s>é1") {
		if id < 0 || int(id) >= tok.VocabSize() {
			t.Errorf("id %d of a vocabulary of %d", id, tok.VocabSize())
		}
	}
}

func requireLine(t *testing.T, what string, err error) {
	if !usererr.Is(err) || strings.ContainsAny(err.Error(), "\n\r") {
		t.Errorf("%s: %q, want one line of bad input", what, err)
	}
}

// ggufSeeds are whole files: plain and packed elements, with and without a tokenizer.
func ggufSeeds(f *testing.F) [][]byte {
	plain := fakeTensors(f, fakeConfig(), dtypes.Float32, true)
	words := func(change map[string]any) map[string]any {
		tokens := []string{"<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "▁a", "<0x0A>", "c", "d"}
		return with(fakeMetadata(), with(map[string]any{"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens}, change))
	}
	seeds := [][]byte{
		ggufBytes(f, fakeMetadata(), plain),
		ggufBytes(f, fakeMetadata(), fakeTensors(f, fakeConfig(), dtypes.BFloat16, true)),
		ggufBytes(f, words(nil), plain),
		ggufBytes(f, words(map[string]any{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": []string{"a b"}}), plain),
		ggufBytes(f, with(fakeMetadata(), map[string]any{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float32(2)}), plain),
	}
	// Wide enough for whole blocks in every row.
	wide := map[string]any{"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
	metadata := with(fakeMetadata(), map[string]any{"llama.embedding_length": uint32(64), "llama.feed_forward_length": uint32(32), "llama.block_count": uint32(1),
		"llama.attention.head_count": uint32(2), "llama.attention.head_count_kv": uint32(1), "llama.rope.dimension_count": uint32(32)})
	for _, kinds := range [][2]string{{"Q4_1", "Q8_0"}, {"Q8_0", "Q4_1"}} {
		list := fakeTensors(f, with(fakeConfig(), wide), dtypes.Float32, true)
		for i, one := range list {
			if len(one.Dims) == 2 {
				kind := kinds[0]
				if strings.HasPrefix(one.Name, "token_embd") || strings.HasPrefix(one.Name, "output") {
					kind = kinds[1]
				}
				list[i] = one.Pack(kind)
			}
		}
		seeds = append(seeds, ggufBytes(f, metadata, list))
	}
	return seeds
}

// Whatever a GGUF file holds, it is refused in one line, or all of it can be read.
func FuzzGGUF(f *testing.F) {
	for _, seed := range ggufSeeds(f) {
		f.Add(seed)
		f.Add(seed[:len(seed)*2/3])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		requireHarmless(t, writeFile(t, data, t.TempDir(), "fuzz.gguf"))
	})
}

// Whatever a file of safetensors holds, likewise.
func FuzzSafetensors(f *testing.F) {
	list := fakeTensors(f, fakeConfig(), dtypes.Float32, false)
	good := safetensorsBytes(f, list)
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add(safetensorsBytes(f, fakeTensors(f, fakeConfig(), dtypes.Float16, false)))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	for _, change := range [][2]string{{`"data_offsets":[0,`, `"data_offsets":[-1,`}, {`"dtype":"F32"`, `"dtype":"I8"`}, {`"shape":[24]`, `"shape":[4294967296,4294967296]`}, {`"shape":[24]`, `"shape":null`}} {
		changed := strings.ReplaceAll(string(good), change[0], change[1])
		if changed == string(good) {
			f.Fatalf("nothing to replace: %s", change[0])
		}
		f.Add([]byte(changed))
	}
	config := mustJSON(f, fakeConfig())
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		writeFile(t, config, dir, configFile)
		writeFile(t, data, dir, weightsFile)
		requireHarmless(t, dir)
	})
}

// Whatever an index of shards says, likewise; and no file outside of the folder is opened.
func FuzzIndex(f *testing.F) {
	list := fakeTensors(f, fakeConfig(), dtypes.Float32, false)
	shards := map[string][]byte{}
	places := map[string]string{}
	for i, part := range [][]fakeTensor{list[:len(list)/2], list[len(list)/2:]} {
		name := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}[i]
		shards[name] = safetensorsBytes(f, part)
		for _, one := range part {
			places[one.Name] = name
		}
	}
	index := func(change map[string]string) []byte {
		all := maps.Clone(places)
		maps.Copy(all, change)
		return mustJSON(f, map[string]any{"metadata": map[string]any{"total_size": 1}, "weight_map": all})
	}
	first := slices.Sorted(maps.Keys(places))[0]
	f.Add(index(nil))
	for _, shard := range []string{"../outside.safetensors", "/dev/zero", "", ".", "..", "a/../model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors\x00", "folder.safetensors", "pipe.safetensors"} {
		f.Add(index(map[string]string{first: shard}))
	}
	f.Add([]byte(`{"weight_map":{"a":null}}`))
	f.Add([]byte(`{"weight_map":[]}`))
	config := mustJSON(f, fakeConfig())
	outside := safetensorsBytes(f, list)
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "model")
		if err := os.MkdirAll(filepath.Join(dir, "folder.safetensors"), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, outside, top, "outside.safetensors")
		writeFile(t, config, dir, configFile)
		for name, content := range shards {
			writeFile(t, content, dir, name)
		}
		writeFile(t, data, dir, indexFile)
		requireHarmless(t, dir)
		if f, err := Open(dir); err == nil {
			for _, w := range f.Config().Weights() {
				if s := f.stored(w); filepath.Dir(s.file) != dir {
					t.Errorf("%s is read from %s", w.HF, s.file)
				}
			}
		}
	})
}
