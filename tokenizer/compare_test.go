package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/go-huggingface/models/gguf"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// compareCases is what other implementations make of many texts: testdata/cases.json.gz, made by
// scripts/compare-tokenizers, which also runs these tests on far more texts
// ($KVQ_TOKENIZER_TESTDATA).
type compareCases struct {
	Origin     string
	Texts      []string
	OwnCases   []ownCase `json:"llama_tokenizer_js"`
	Tokenizers map[string]struct {
		Base  string // whose vocabulary
		Patch map[string]json.RawMessage
		IDs   [][]Token
		// without special tokens, of the first texts
		BareIDs       [][]Token         `json:"bare_ids"`
		Decoded       map[string]string // of IDs, by index, where it is not the text
		Skipped       map[string]string // the same, special tokens left out
		RandomIDs     [][]Token         `json:"random_ids"`
		RandomDecoded []string          `json:"random_decoded"`
	}
	SentencePiece [][]Token
	Chat          []chatCase
}

type ownCase struct {
	Text string
	IDs  []Token
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("KVQ_TOKENIZER_TESTDATA")
	if dir == "" {
		dir = "testdata"
	}
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readCases(t testing.TB) *compareCases {
	t.Helper()
	var c compareCases
	if err := json.Unmarshal(testdata(t, "cases.json.gz"), &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Texts) < 300 || len(c.Tokenizers) < 8 || len(c.SentencePiece) != len(c.Texts) {
		t.Fatalf("%d texts and %d tokenizers, want at least 300 and 8", len(c.Texts), len(c.Tokenizers))
	}
	return &c
}

// llama2JSON is Llama-2's tokenizer.json.
func llama2JSON(t testing.TB) []byte { return testdata(t, "llama2-tokenizer.json.gz") }

// smollm2JSON writes SmolLM2's tokenizer as a tokenizer.json, from the GGUF file's metadata.
func smollm2JSON(t testing.TB) []byte {
	t.Helper()
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	file, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tokens, _ := file.GetKeyValue("tokenizer.ggml.tokens")
	kinds, _ := file.GetKeyValue("tokenizer.ggml.token_type")
	merges, _ := file.GetKeyValue("tokenizer.ggml.merges")
	vocabulary := map[string]int{}
	var added []addedJSON
	types := kinds.Int64s() // makes a copy
	for id, token := range tokens.Strings() {
		vocabulary[token] = id
		if types[id] == typeControl {
			added = append(added, addedJSON{ID: Token(id), Content: token, Special: true})
		}
	}
	data, err := json.Marshal(map[string]any{
		"added_tokens": added,
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []map[string]any{
			{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}}},
		"decoder": map[string]any{"type": "ByteLevel"},
		"model":   map[string]any{"type": "BPE", "vocab": vocabulary, "merges": merges.Strings()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// patched replaces stages of a tokenizer.json; of the stage "model" single fields.
func patched(t testing.TB, data []byte, patch map[string]json.RawMessage) []byte {
	t.Helper()
	if len(patch) == 0 {
		return data
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for name, value := range patch {
		if name == "model" {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal(value, &fields); err != nil {
				t.Fatal(err)
			}
			value = patched(t, file["model"], fields)
		}
		file[name] = value
	}
	out, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Ids and texts equal those of Hugging Face's tokenizers, in both directions.
func TestCompareHuggingFace(t *testing.T) {
	testlane.Slow(t, "reads the large files of two tokenizers")
	cases := readCases(t)
	bases := map[string]func(testing.TB) []byte{"smollm2": smollm2JSON, "llama2": llama2JSON}
	for _, name := range sortedKeys(cases.Tokenizers) {
		t.Run(name, func(t *testing.T) {
			c := cases.Tokenizers[name]
			tok, err := parseJSON(patched(t, bases[c.Base](t), c.Patch))
			if err != nil {
				t.Fatal(err)
			}
			if len(c.IDs) != len(cases.Texts) || len(c.BareIDs) == 0 || len(c.RandomIDs) < 50 {
				t.Fatalf("%d rows of ids, %d bare, %d random: the file is incomplete", len(c.IDs), len(c.BareIDs), len(c.RandomIDs))
			}
			bad := 0
			report := func(format string, args ...any) {
				t.Helper()
				if bad++; bad <= 10 {
					t.Errorf(format, args...)
				}
			}
			for i, text := range cases.Texts {
				if got := tok.Encode(text); !slices.Equal(got, c.IDs[i]) {
					report("Encode(%q)\n got %v %q\nwant %v %q", text, got, tok.pieces(got, false), c.IDs[i], tok.pieces(c.IDs[i], false))
				}
				for key, skip := range map[*map[string]string]bool{&c.Decoded: false, &c.Skipped: true} {
					want, differs := (*key)[strconv.Itoa(i)]
					if !differs {
						want = text
					}
					if got := tok.Decode(c.IDs[i], skip); got != want {
						report("Decode of %q, skip %v\n got %q\nwant %q", text, skip, got, want)
					}
					if got := streamed(tok, c.IDs[i], skip); got != want && !strings.ContainsRune(want, '\uFFFD') {
						report("streamed %q, skip %v\n got %q\nwant %q", text, skip, got, want)
					}
				}
			}
			for i, want := range c.BareIDs {
				if got := tok.EncodeWith(cases.Texts[i], EncodeOptions{WithoutSpecialTokens: true}); !slices.Equal(got, want) {
					report("Encode(%q) without special tokens: %v, want %v", cases.Texts[i], got, want)
				}
			}
			for i, ids := range c.RandomIDs {
				if got, want := tok.Decode(ids, false), c.RandomDecoded[i]; got != want {
					report("Decode(%v)\n got %q\nwant %q", ids, got, want)
				}
			}
			if bad > 10 {
				t.Errorf("and %d more", bad-10)
			}
		})
	}
}

// streamed decodes token by token, and checks that no piece holds a part of a character.
func streamed(tok *Tokenizer, ids []Token, skipSpecial bool) string {
	s := tok.Stream(skipSpecial)
	var out strings.Builder
	for _, id := range ids {
		out.WriteString(s.Push(id))
	}
	out.WriteString(s.Flush())
	return out.String()
}

// Llama-2's tokenizer.model gives what SentencePiece gives.
func TestCompareSentencePiece(t *testing.T) {
	cases := readCases(t)
	tok, err := fromSentencePiece(testdata(t, "llama2-tokenizer.model.gz"), prefixEach)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range cases.Texts {
		if got, want := tok.EncodeWith(text, EncodeOptions{WithoutSpecialTokens: true, SplitSpecialTokens: true}), cases.SentencePiece[i]; !slices.Equal(got, want) {
			t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, want)
		}
	}
}

// Both formats of Llama-2's tokenizer agree in a folder, and pass the test cases that
// llama-tokenizer-js brings along.
func TestLlama2Folder(t *testing.T) {
	cases := readCases(t)
	const config = `{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false, "bos_token": "<s>",
		"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false}, "unk_token": "<unk>", "pad_token": null,
		"legacy": true, "clean_up_tokenization_spaces": false}`
	for name, data := range map[string][]byte{jsonFile: llama2JSON(t), modelFile: testdata(t, "llama2-tokenizer.model.gz")} {
		dir := t.TempDir()
		write(t, dir, name, data)
		write(t, dir, settingsFile, []byte(config))
		tok, err := FromFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if tok.VocabSize() != 32000 || tok.BOS() != 1 || tok.EOS() != 2 || tok.Pad() != -1 {
			t.Errorf("%s: size %d, bos %d, eos %d, pad %d; want 32000, 1, 2, -1", name, tok.VocabSize(), tok.BOS(), tok.EOS(), tok.Pad())
		}
		for _, c := range cases.OwnCases {
			if got := tok.Encode(c.Text); !slices.Equal(got, c.IDs) {
				t.Errorf("%s: Encode(%q) = %v, want %v", name, c.Text, got, c.IDs)
			}
			if got := tok.Decode(c.IDs, true); got != c.Text {
				t.Errorf("%s: Decode(%v) = %q, want %q", name, c.IDs, got, c.Text)
			}
		}
		for i, text := range cases.Texts {
			if got, want := tok.Encode(text), cases.Tokenizers["llama2"].IDs[i]; !slices.Equal(got, want) {
				t.Errorf("%s: Encode(%q)\n got %v\nwant %v", name, text, got, want)
			}
		}
	}
}

// A GGUF file of a Llama-2 has the same vocabulary as pieces with scores.
func TestLlama2GGUF(t *testing.T) {
	cases := readCases(t)
	f, err := parseSentencePiece(testdata(t, "llama2-tokenizer.model.gz"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "llama2.gguf")
	metadata := map[string]any{
		"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": f.pieces, "tokenizer.ggml.scores": toFloat32(f.scores),
		"tokenizer.ggml.token_type": toInt32(f.types), "tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2),
	}
	write(t, filepath.Dir(path), filepath.Base(path), ggufBytes(t, metadata))
	file, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := FromGGUF(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range cases.Texts {
		if got, want := tok.Encode(text), cases.Tokenizers["llama2"].IDs[i]; !slices.Equal(got, want) {
			t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, want)
		}
	}
}

// A GGUF file of a Qwen has vocabulary and merges, and names the rest: the ids are those of its
// tokenizer.json, and those of Hugging Face's tokenizers.
func TestQwen2GGUF(t *testing.T) {
	testlane.Slow(t, "reads the large files of a tokenizer")
	cases := readCases(t)
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	small, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	value := func(key string) gguf.Value {
		kv, found := small.GetKeyValue(key)
		if !found {
			t.Fatalf("the small model has no %s", key)
		}
		return kv.Value
	}
	types := value("tokenizer.ggml.token_type").Int64s()
	kinds := make([]int32, len(types))
	for i, kind := range types {
		kinds[i] = int32(kind)
	}
	path = filepath.Join(t.TempDir(), "qwen2.gguf")
	write(t, filepath.Dir(path), filepath.Base(path), ggufBytes(t, map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.add_bos_token": false,
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.token_type": kinds,
		"tokenizer.ggml.tokens": value("tokenizer.ggml.tokens").Strings(), "tokenizer.ggml.merges": value("tokenizer.ggml.merges").Strings(),
	}))
	file, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := FromGGUF(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range cases.Texts {
		if got, want := tok.Encode(text), cases.Tokenizers["qwen2"].IDs[i]; !slices.Equal(got, want) {
			t.Errorf("Encode(%q)\n got %v\nwant %v", text, got, want)
		}
	}
}

func toFloat32(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

func toInt32(x []int) []int32 {
	out := make([]int32, len(x))
	for i, v := range x {
		out[i] = int32(v)
	}
	return out
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
