package main

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

const endlessCase = "endless.gguf"

// givenCases are inputs that failed once: a model each, made anew here, and what is right. The
// folder ../shared/cases, where it is there, holds one of each of these names from elsewhere.
var givenCases = []struct {
	name string
	make func(t *testing.T) string
	want func(t *testing.T, path string)
}{
	{"llama2-saved-by-v5-without-bos", llama2WithoutBOS, func(t *testing.T, path string) {
		if got := tokenizerOf(t, path).Encode("Hello"); !slices.Equal(got, []tokenizer.Token{15043}) {
			t.Errorf("ids %v, want [15043]", got)
		}
	}},
	{"rope-scaling-beside-rope-parameters", func(t *testing.T) string {
		return tinyModel(t, func(c map[string]any) {
			c["rope_parameters"] = map[string]any{"rope_type": "default", "rope_theta": 5e5}
			c["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": 4.0}
		})
	}, func(t *testing.T, path string) {
		c := open(t, path).Config()
		for i, got := range c.RotaryFrequencies() { // rope_theta at the top is 10,000
			if want := math.Pow(10000, -2*float64(i)/float64(c.HeadDim)) / 4; math.Abs(float64(got)/want-1) > 1e-6 {
				t.Errorf("frequency %d is %g, want %g", i, got, want)
			}
		}
	}},
	{"saved-whole-over-shards", func(t *testing.T) string {
		dir := tinyModel(t, nil)
		var whole map[string]any
		data := safetensors(t)
		if err := json.Unmarshal(data[8:8+binary.LittleEndian.Uint64(data)], &whole); err != nil {
			t.Fatal(err)
		}
		shards := map[string]string{}
		for name := range whole {
			shards[name] = "model-00001-of-00002.safetensors"
		}
		writeJSON(t, map[string]any{"weight_map": shards}, dir, "model.safetensors.index.json")
		return dir
	}, func(t *testing.T, path string) {
		f := open(t, path)
		for _, w := range f.Config().Weights() {
			dst := make([]byte, 4*w.Elements())
			if err := f.Read(context.Background(), w, modelfile.As{DType: dtypes.Float32}, dst); err != nil {
				t.Error(err)
			}
		}
	}},
	{endlessCase, alwaysEndOfTurn, func(t *testing.T, path string) {
		testlane.Slow(t, "compiles a generation; the end of turn by its name is TestHarmlessGGUF's too")
		needsXLA(t)
		j := parse[generateJSON](t, mustRun(t, "", "generate", "--model", path, "--cache", "full", "--chat", "--prompt", "hi", "--max-new-tokens", "20", "--json"))
		if p := j.Prompts[0]; len(p.OutputIDs) != 1 || p.Text != "" || j.Stop != "eos" {
			t.Errorf("new tokens %v with text %q, stop %q; want one that ends, without text", p.OutputIDs, p.Text, j.Stop)
		}
	}},
	{"pre_tekken.gguf", func(t *testing.T) string {
		return byteGGUF(t, []string{"a b", "o W", "1 2"}, map[string]any{"tokenizer.ggml.pre": "tekken"}, nil)
	}, func(t *testing.T, path string) {
		tok := tokenizerOf(t, path)
		const text = "ab helloWorld 123"
		ids := tok.EncodeWith(text, tokenizer.EncodeOptions{WithoutSpecialTokens: true})
		// "a b" joins; Tekken cuts before an upper-case letter and between digits.
		if got := tok.Decode(ids, false); got != text || len(ids) != len(text)-1 {
			t.Errorf("%q becomes %d tokens and %q again, want %d tokens", text, len(ids), got, len(text)-1)
		}
	}},
	{"big-endian.gguf", func(t *testing.T) string {
		data := []byte("GGUF")
		data = binary.BigEndian.AppendUint32(data, 3)
		data = binary.BigEndian.AppendUint64(data, 11)
		data = binary.BigEndian.AppendUint64(data, 19)
		return write(t, append(data, make([]byte, 500)...), t.TempDir(), "big.gguf")
	}, refusedCase("big-endian", "generate", "--prompt", "hi")},
	{"hostile-chatrec", template("{% macro a(n) %}{{ b(n + 1) }}{% endmacro %}{% macro b(n) %}{{ a(n) }}{% endmacro %}{{ a(0) }}"),
		refusedCase("chat template", "generate", "--chat", "--prompt", "hi")},
	{"hostile-chatloop", template("{% for i in range(100000) %}{% for j in range(100000) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}"),
		refusedCase("chat template", "generate", "--chat", "--prompt", "hi")},
	{"hostile-null", tokenizerField("normalizer", `{"type":"Sequence","normalizers":[{"type":"NFC"},null]}`),
		refusedCase("null", "generate", "--prompt", tinyText(5))},
	{"hostile-strip", tokenizerField("decoder", `{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":4611686018427387904,"stop":0}]}`),
		func(t *testing.T, path string) {
			tok := tokenizerOf(t, path)
			if got := tok.Decode([]tokenizer.Token{40, 41}, false); got == "" {
				t.Error("two tokens have no text")
			}
		}},
	{"hostile-ids", tokenizerField("post_processor", `{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"x","type_id":0}}],"special_tokens":{"x":{"id":"x","ids":[8589934599],"tokens":["x"]}}}`),
		refusedCase("post-processor", "generate", "--prompt", tinyText(5))},
	{"hostile-overlap", func(t *testing.T) string {
		dir := tinyModel(t, nil)
		data := safetensors(t)
		size := binary.LittleEndian.Uint64(data)
		var header map[string]map[string]any
		if err := json.Unmarshal(data[8:8+size], &header); err != nil {
			t.Fatal(err)
		}
		header["model.layers.1.mlp.up_proj.weight"]["data_offsets"] = header["model.layers.0.mlp.up_proj.weight"]["data_offsets"]
		text, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		write(t, slices.Concat(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data[8+size:]), dir, "model.safetensors")
		return dir
	}, refusedCase("share bytes", "generate", "--prompt", tinyText(5))},
}

// Every case gives the right answer or the right line: the ones made here, and those of
// ../shared/cases where they are.
func TestCases(t *testing.T) {
	for _, c := range givenCases {
		t.Run(c.name+"/made", func(t *testing.T) { c.want(t, c.make(t)) })
		t.Run(c.name+"/given", func(t *testing.T) {
			if c.name == endlessCase {
				testlane.OnlyAll(t, "compiles a second generation like that of the one made here")
			}
			goldens, err := asset.Goldens()
			if err != nil {
				t.Skipf("no shared files: %v", err)
			}
			path := filepath.Join(goldens, "..", "cases", c.name)
			if _, err := os.Stat(path); err != nil {
				t.Skipf("no such case: %v", err)
			}
			c.want(t, path)
		})
	}
}

// Every file and folder of ../shared/cases has a case here.
func TestCasesAreAll(t *testing.T) {
	goldens, err := asset.Goldens()
	if err != nil {
		t.Skipf("no shared files: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(goldens, "..", "cases"))
	if err != nil {
		t.Skipf("no cases: %v", err)
	}
	for _, e := range entries {
		known := e.Name() == "README.md"
		for _, c := range givenCases {
			known = known || c.name == e.Name()
		}
		if !known {
			t.Errorf("nothing is demanded of %s", e.Name())
		}
	}
}

// The templates of ../shared/cases, and some of their kinds, for the message "hi" of a user.
func TestCasesOfTemplates(t *testing.T) {
	for source, want := range map[string]string{
		"{% for m in messages %}USER: {{ m.content }} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}": "USER: hi ASSISTANT:",
		"{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}":                        "hi",
		"{{ ('a' if true else 'b') + 'c' }}":                     "ac",
		"{{ messages[0] | tojson }}":                             `{"role": "user", "content": "hi"}`,
		"A  {% if true %}B {% endif %} C":                        "A  B  C",
		"{{ ([1, 2] + [3])[-1] ~ ('x' if false else 'y') * 2 }}": "3yy",
		"{{ {'b': 1, 'a': messages[0].content} | tojson }}":      `{"b": 1, "a": "hi"}`,
	} {
		got, err := tokenizerOf(t, template(source)(t)).ApplyChatTemplate(context.Background(), []tokenizer.Message{{Role: "user", Content: "hi"}}, true)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", source, got, err, want)
		}
	}
}

// What does not matter is no reason to refuse a model: one line of warning, or none.
func TestCasesOfHarmless(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		warns string
	}{
		"a [PAD] behind the embedding": {func() string {
			dir := tinyModel(t, func(c map[string]any) { c["pad_token_id"] = tinyVocab })
			field(t, dir, "added_tokens", []map[string]any{{"id": 0, "content": "<unk>", "special": true}, {"id": tinyVocab, "content": "[PAD]", "special": true}})
			return dir
		}(), "pad_token_id = 256"},
		"no padding in a GGUF":                     {byteGGUF(t, []string{"a b"}, map[string]any{"tokenizer.ggml.padding_token_id": uint32(math.MaxUint32)}, nil), "padding_token_id = 4294967295"},
		"an end of sequence behind the vocabulary": {tinyModel(t, func(c map[string]any) { c["eos_token_id"] = []int{2, 999} }), "eos_token_id = 999"},
	} {
		status, out, errs := runKVQ(t, "", "memory", "--model", c.path, "--cache", "full", "--quiet")
		if status != exitOK || out == "" || !strings.HasPrefix(errs, "kvq: warning: ") || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, c.warns) {
			t.Errorf("%s: status %d, %q; want one warning with %q", name, status, errs, c.warns)
		}
	}
	// Such a token is refused where it is used, by a prompt or by the chat template.
	dir := template("{% for m in messages %}[PAD]{{ m.content }}{% endfor %}")(t)
	field(t, dir, "added_tokens", []map[string]any{{"id": 0, "content": "<unk>", "special": true}, {"id": tinyVocab, "content": "[PAD]", "special": true}})
	refusedCase(`holds "[PAD]", which was added to the tokenizer`, "generate", "--prompt", tinyText(5)+"[PAD]")(t, dir)
	refusedCase(`as the chat template writes it holds "[PAD]"`, "generate", "--chat", "--prompt", tinyText(5))(t, dir)
	list := fakemodel.Random(dtypes.Float32, weightsOf(t, fakemodel.Config()))
	list = append(list, fakemodel.Tensor{Name: "model.layers.0.self_attn.rotary_emb.inv_freq", DType: dtypes.Float32, Dims: []int{2}, Data: make([]byte, 8)})
	if status, _, errs := runKVQ(t, "", "memory", "--model", fakemodel.Folder(t, fakemodel.Config(), list), "--cache", "full"); status != exitOK || errs != "" {
		t.Errorf("a stray inv_freq: status %d, %q", status, errs)
	}
}

func open(t *testing.T, path string) *llama.Files {
	t.Helper()
	f, err := llama.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func tokenizerOf(t *testing.T, path string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := open(t, path).Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// refusedCase demands one short line with says, soon, of a command for the model.
func refusedCase(says string, args ...string) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		began := time.Now()
		status, out, errs := runKVQ(t, "", append(args, "--model", path, "--cache", "full", "--max-new-tokens", "3")...)
		if status != exitBadInput || out != "" || !strings.HasPrefix(errs, "kvq: ") || strings.Count(errs, "\n") != 1 || len(errs) > 400 || !strings.Contains(errs, says) {
			t.Errorf("status %d, %q, %q; want %d and one line with %q", status, out, errs, exitBadInput, says)
		}
		if spent := time.Since(began); spent > 20*time.Second {
			t.Errorf("refused after %s", spent)
		}
	}
}

// template makes a model with a chat template.
func template(source string) func(t *testing.T) string {
	return func(t *testing.T) string {
		dir := tinyModel(t, nil)
		writeJSON(t, map[string]any{"eos_token": "</s>", "chat_template": source}, dir, "tokenizer_config.json")
		return dir
	}
}

// tokenizerField makes a model with another field in its tokenizer.json.
func tokenizerField(name, value string) func(t *testing.T) string {
	return func(t *testing.T) string {
		dir := tinyModel(t, nil)
		field(t, dir, name, json.RawMessage(value))
		return dir
	}
}

func field(t *testing.T, dir, name string, value any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	fields[name] = value
	writeJSON(t, fields, dir, "tokenizer.json")
}

// llama2WithoutBOS is Llama-2's tokenizer as version 5 of transformers saves it after
// add_bos_token=False: a template of the text alone, and no flag.
func llama2WithoutBOS(t *testing.T) string {
	file, err := os.Open("../../tokenizer/testdata/llama2-tokenizer.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var tok map[string]any
	if err := json.NewDecoder(unzipped).Decode(&tok); err != nil {
		t.Fatal(err)
	}
	tok["normalizer"] = nil
	tok["pre_tokenizer"] = map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}
	tok["post_processor"] = json.RawMessage(`{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{}}`)
	config := fakemodel.With(fakemodel.Config(), map[string]any{"vocab_size": 32000})
	dir := fakemodel.Folder(t, config, fakemodel.Random(dtypes.Float16, weightsOf(t, config)))
	writeJSON(t, tok, dir, "tokenizer.json")
	writeJSON(t, map[string]any{"backend": "tokenizers", "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, dir, "tokenizer_config.json")
	return dir
}

// alwaysEndOfTurn is a GGUF whose every token is followed by <|eot_id|>, as its converter left it:
// the end of turn has a name, and no key.
func alwaysEndOfTurn(t *testing.T) string {
	return byteGGUF(t, []string{"a b"}, map[string]any{
		"tokenizer.ggml.pre":      "llama-bpe",
		"tokenizer.chat_template": "{% for m in messages %}{{ m.role + ': ' + m.content + '<|eot_id|>' }}{% endfor %}",
	}, func(vocabulary []string, x *fakemodel.Tensor) {
		const width = 24
		set := func(row int, v float32) {
			for i := range width {
				fakemodel.Put(dtypes.Float32, x.Data[4*(row*width+i):], v)
			}
		}
		// Every token enters as ones and passes the layers unchanged: their outputs are zero. The
		// head has ones for <|eot_id|> and zeros for the others.
		switch {
		case x.Name == "output.weight":
			clear(x.Data)
			set(slices.Index(vocabulary, "<|eot_id|>"), 1)
		case x.Name == "token_embd.weight":
			for row := range vocabulary {
				set(row, 1)
			}
		case strings.HasSuffix(x.Name, "norm.weight"):
			set(0, 1)
		default:
			clear(x.Data)
		}
	})
}

// byteGGUF is a made-up GGUF model with byte-level BPE: the printable characters of ASCII, a blank,
// what merges make, and the special tokens of Llama-3. change may alter weights.
func byteGGUF(t *testing.T, merges []string, metadata map[string]any, change func(vocabulary []string, x *fakemodel.Tensor)) string {
	t.Helper()
	vocabulary := []string{"Ġ", "Ċ"}
	for c := '!'; c <= '~'; c++ {
		vocabulary = append(vocabulary, string(c))
	}
	for _, m := range merges {
		vocabulary = append(vocabulary, strings.ReplaceAll(m, " ", ""))
	}
	plain := len(vocabulary)
	vocabulary = append(vocabulary, "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
	types := make([]int32, len(vocabulary))
	for id := range types {
		types[id] = 1
		if id >= plain {
			types[id] = 3
		}
	}
	config := fakemodel.With(fakemodel.Config(), map[string]any{"vocab_size": len(vocabulary)})
	list := fakemodel.Random(dtypes.Float32, weightsOf(t, config))
	for i, w := range parsed(t, config).Weights() {
		list[i].Name = w.GGUF
		if change != nil {
			change(vocabulary, &list[i])
		}
	}
	all := fakemodel.With(fakemodel.With(fakemodel.Metadata(), map[string]any{
		"llama.vocab_size": uint32(len(vocabulary)), "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": vocabulary,
		"tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": uint32(plain),
		"tokenizer.ggml.eos_token_id": uint32(plain + 1), "tokenizer.ggml.eot_token_id": fakemodel.Absent,
	}), metadata)
	return write(t, fakemodel.GGUF(t, all, list), t.TempDir(), "bytes.gguf")
}

func parsed(t *testing.T, config map[string]any) llama.Config {
	t.Helper()
	c, err := modelfile.ParseConfig(fakemodel.JSON(t, config), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// weightsOf lists the weights of a configuration by Hugging Face's names, without elements.
func weightsOf(t *testing.T, config map[string]any) []fakemodel.Tensor {
	t.Helper()
	var list []fakemodel.Tensor
	for _, w := range parsed(t, config).Weights() {
		list = append(list, fakemodel.Tensor{Name: w.HF, Dims: w.Dims})
	}
	return list
}
