package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// asKVQ makes the test program be kvq itself, for tests that need a process of their own.
const asKVQ = "KVQ_TEST_AS_KVQ"

func TestMain(m *testing.M) {
	if os.Getenv(asKVQ) == "1" {
		os.Exit(interruptible(cli.EndsProcess(context.Background()), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// runKVQ runs a command line in this process.
func runKVQ(t testing.TB, in string, args ...string) (status int, out, errs string) {
	t.Helper()
	// bench turns off what keeps compiled graphs, for the whole process.
	before := os.Getenv(asset.EnvCompiled)
	defer os.Setenv(asset.EnvCompiled, before)
	var stdout, stderr bytes.Buffer
	status = execute(context.Background(), args, strings.NewReader(in), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// mustRun runs a command line that has to succeed, and returns its output.
func mustRun(t testing.TB, in string, args ...string) string {
	t.Helper()
	status, out, errs := runKVQ(t, in, args...)
	if status != exitOK {
		t.Fatalf("kvq %q: status %d, %s", args, status, errs)
	}
	return out
}

// parse reads the one JSON object that out has to be, without unknown fields.
func parse[T any](t testing.TB, out string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not the JSON it should be: %v\n%s", err, out)
	}
	if d.More() {
		t.Fatalf("more than one JSON object: %s", out)
	}
	return v
}

// needsXLA skips the test where there is no XLA, or fails it where there has to be.
func needsXLA(t testing.TB) { testbackend.XLA(t) }

// Sizes of the made-up model.
const (
	tinyVocab, tinyHidden, tinyInner, tinyLayers = 256, 32, 48, 2
	tinyHeads, tinyKVHeads, tinyHeadDim          = 4, 2, 8
	tinyContext                                  = 512
)

// tinyModel writes a made-up model with random weights: Llama with grouped heads, and a tokenizer
// that has one character for each token. change may alter its config.json.
func tinyModel(t testing.TB, change func(config map[string]any)) string {
	t.Helper()
	dir := t.TempDir()
	config := map[string]any{
		"model_type": "llama", "architectures": []string{"LlamaForCausalLM"}, "vocab_size": tinyVocab, "hidden_size": tinyHidden,
		"intermediate_size": tinyInner, "num_hidden_layers": tinyLayers, "num_attention_heads": tinyHeads,
		"num_key_value_heads": tinyKVHeads, "max_position_embeddings": tinyContext, "rms_norm_eps": 1e-5,
		"rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false,
	}
	if change != nil {
		change(config)
	}
	writeJSON(t, config, dir, "config.json")
	headDim := tinyHeadDim
	if own, ok := config["head_dim"].(int); ok {
		headDim = own
	}
	write(t, weightsWith(t, headDim), dir, "model.safetensors")
	addTokenizer(t, dir)
	return dir
}

// addTokenizer gives a folder a tokenizer whose id n is the character U+4E00 + n, and nothing ever
// merges: every row of ids is a text, and every text a row of ids. The ids 0 to 2 are special.
func addTokenizer(t testing.TB, dir string) {
	t.Helper()
	vocabulary := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	for id := 3; id < tinyVocab; id++ {
		vocabulary[string(rune(0x4e00+id))] = id
	}
	var added []map[string]any
	for id, name := range []string{"<unk>", "<s>", "</s>"} {
		added = append(added, map[string]any{"id": id, "content": name, "special": true})
	}
	writeJSON(t, map[string]any{
		"added_tokens": added,
		"decoder":      map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"},
		"model":        map[string]any{"type": "BPE", "vocab": vocabulary, "merges": []string{}, "unk_token": "<unk>"},
	}, dir, "tokenizer.json")
	writeJSON(t, map[string]any{
		"eos_token": "</s>", "chat_template": "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}",
	}, dir, "tokenizer_config.json")
}

// tinyText is the text of ids, by addTokenizer.
func tinyText(ids ...int32) string {
	var s strings.Builder
	for _, id := range ids {
		s.WriteRune(rune(0x4e00 + id))
	}
	return s.String()
}

// safetensors is the file of the made-up model's weights.
func safetensors(t testing.TB) []byte { return weightsWith(t, tinyHeadDim) }

// weightsWith is safetensors with heads of headDim elements.
func weightsWith(t testing.TB, headDim int) []byte {
	t.Helper()
	q, kv := tinyHeads*headDim, tinyKVHeads*headDim
	shapes := [][]any{{"model.embed_tokens.weight", tinyVocab, tinyHidden}, {"lm_head.weight", tinyVocab, tinyHidden}, {"model.norm.weight", tinyHidden}}
	for _, layer := range []string{"model.layers.0.", "model.layers.1."} {
		shapes = append(shapes, []any{layer + "input_layernorm.weight", tinyHidden}, []any{layer + "post_attention_layernorm.weight", tinyHidden},
			[]any{layer + "self_attn.q_proj.weight", q, tinyHidden}, []any{layer + "self_attn.k_proj.weight", kv, tinyHidden},
			[]any{layer + "self_attn.v_proj.weight", kv, tinyHidden}, []any{layer + "self_attn.o_proj.weight", tinyHidden, q},
			[]any{layer + "mlp.gate_proj.weight", tinyInner, tinyHidden}, []any{layer + "mlp.up_proj.weight", tinyInner, tinyHidden},
			[]any{layer + "mlp.down_proj.weight", tinyHidden, tinyInner})
	}
	random := rand.New(rand.NewPCG(1, 2))
	header := map[string]any{}
	var data []byte
	for _, s := range shapes {
		count, begin := 1, len(data)
		for _, d := range s[1:] {
			count *= d.(int)
		}
		for range count {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(random.NormFloat64()*0.4)))
		}
		header[s[0].(string)] = map[string]any{"dtype": "F32", "shape": s[1:], "data_offsets": []int{begin, len(data)}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

func writeJSON(t testing.TB, v any, path ...string) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	write(t, data, path...)
}

func write(t testing.TB, data []byte, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
