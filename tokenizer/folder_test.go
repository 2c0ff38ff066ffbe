package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// tinyJSON is a tokenizer.json with the vocabulary "a" to "d", "ab", "cd", "abcd" and <s>, </s>;
// changes replace fields.
func tinyJSON(t testing.TB, changes map[string]any) []byte {
	t.Helper()
	file := map[string]any{
		"added_tokens": []map[string]any{{"id": 7, "content": "<s>", "special": true}, {"id": 8, "content": "</s>", "special": true}},
		"normalizer":   nil, "pre_tokenizer": nil, "post_processor": nil,
		"decoder": map[string]any{"type": "Metaspace", "replacement": "▁"},
		"model": map[string]any{"type": "BPE", "vocab": map[string]int{"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4, "cd": 5, "abcd": 6},
			"merges": []any{"a b", []string{"c", "d"}, "ab cd"}},
	}
	for name, value := range changes {
		file[name] = value
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func tinyFolder(t testing.TB, file map[string]any, settings string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, jsonFile, tinyJSON(t, file))
	if settings != "" {
		write(t, dir, settingsFile, []byte(settings))
	}
	return dir
}

// By hand: ab is joined before cd, then both; e is not in the vocabulary and, without an unknown
// token, vanishes before anything is joined, as in Hugging Face's tokenizers 0.23.3.
func TestTinyBPE(t *testing.T) {
	tok, err := FromFolder(tinyFolder(t, nil, ""))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]Token{
		"": nil, "abcd": {6}, "bcd": {1, 5}, "aab": {0, 4}, "abab": {4, 4}, "acd</s>ab": {0, 5, 8, 4}, "aeb": {4}, "aebcd": {6}, "e": nil, "<s>": {7},
	} {
		if got := tok.Encode(text); !slices.Equal(got, want) {
			t.Errorf("Encode(%q) = %v, want %v", text, got, want)
		}
	}
	if got := tok.EncodeWith("a</s>b", EncodeOptions{SplitSpecialTokens: true}); !slices.Equal(got, []Token{4}) {
		t.Errorf("special tokens split: %v, want [4]", got)
	}
	if got, want := tok.Decode([]Token{7, 6, 99, -1, 8}, false), "<s>abcd</s>"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := tok.BatchDecode([][]Token{{7, 6, 8}, {}}, true), []string{"abcd", ""}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if tok.VocabSize() != 9 || !tok.IsSpecial(7) || tok.IsSpecial(6) {
		t.Errorf("size %d, special %v and %v; want 9, true, false", tok.VocabSize(), tok.IsSpecial(7), tok.IsSpecial(6))
	}
}

// Which tokens a text is framed by: the template of tokenizer.json, as version 5 of transformers
// has it. add_bos_token and add_eos_token, which version 4 obeyed, change nothing beside it. The
// answers are those of transformers 5.24.
func TestBeginOfSequenceRules(t *testing.T) {
	template := map[string]any{"post_processor": map[string]any{
		"type":           "TemplateProcessing",
		"single":         []any{map[string]any{"Sequence": map[string]any{"id": "A"}}, map[string]any{"SpecialToken": map[string]any{"id": "</s>"}}},
		"special_tokens": map[string]any{"</s>": map[string]any{"ids": []int{8}}},
	}}
	const names = `"bos_token": "<s>", "eos_token": {"content": "</s>"}`
	for _, c := range []struct {
		name     string
		file     map[string]any
		settings string
		want     []Token
	}{
		{"no settings", nil, "", []Token{0}},
		{"template of the file", template, `{"tokenizer_class": "PreTrainedTokenizerFast", ` + names + `}`, []Token{0, 8}},
		{"template of a Llama", template, `{"tokenizer_class": "LlamaTokenizerFast", ` + names + `}`, []Token{0, 8}},
		{"Llama without a template", nil, `{"tokenizer_class": "LlamaTokenizer", "add_eos_token": true, ` + names + `}`, []Token{0}},
		{"Llama with flags against its template", template, `{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false, ` + names + `}`, []Token{0, 8}},
		{"saved by version 5", template, `{"tokenizer_class": "LlamaTokenizer", "backend": "tokenizers", ` + names + `}`, []Token{0, 8}},
		{"saved by version 5 without", nil, `{"tokenizer_class": "LlamaTokenizer", "backend": "tokenizers", ` + names + `}`, []Token{0}},
	} {
		tok, err := FromFolder(tinyFolder(t, c.file, c.settings))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := tok.Encode("a"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got := tok.EncodeWith("a", EncodeOptions{WithoutSpecialTokens: true}); !slices.Equal(got, []Token{0}) {
			t.Errorf("%s: without special tokens %v, want [0]", c.name, got)
		}
	}
}

// Special tokens that the vocabulary (of 9) does not have are added behind it, in the order of
// transformers, which gave these ids.
func TestNamedTokensAreAdded(t *testing.T) {
	tok, err := FromFolder(tinyFolder(t, nil, `{"pad_token": "[PAD]", "bos_token": "<nowhere>", "eos_token": "</s>", "sep_token": "[SEP]",
		"mask_token": null, "additional_special_tokens": ["[A]", "[B]", "[PAD]"], "extra_special_tokens": {"image": "<img>"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("[PAD]ab<nowhere>[SEP][B][A]</s><img>"), []Token{11, 4, 9, 10, 13, 12, 8, 14}; !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
	if tok.BOS() != 9 || tok.EOS() != 8 || tok.Pad() != 11 || !tok.IsSpecial(13) || tok.VocabSize() != 15 || tok.ModelVocabSize() != 7 {
		t.Errorf("bos %d, eos %d, pad %d, size %d and %d; want 9, 8, 11, 15 and 7", tok.BOS(), tok.EOS(), tok.Pad(), tok.VocabSize(), tok.ModelVocabSize())
	}
}

// added_tokens_decoder, a list of templates and chat_template.jinja, as transformers reads them.
func TestFolderSettings(t *testing.T) {
	const config = `{"added_tokens_decoder": {"9": {"content": "<pad>", "special": true}, "10": {"content": "word"}}, "pad_token": "<pad>",
		"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}`
	dir := tinyFolder(t, nil, config)
	tok, err := FromFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a<pad>word"); !slices.Equal(got, []Token{0, 9, 10}) || tok.Pad() != 9 || tok.VocabSize() != 11 {
		t.Errorf("ids %v, pad %d, size %d; want [0 9 10], 9, 11", got, tok.Pad(), tok.VocabSize())
	}
	if got := tok.Decode([]Token{9, 10}, true); got != "word" {
		t.Errorf("%q, want %q", got, "word")
	}
	if tok.ChatTemplate() != "yes" {
		t.Errorf("chat template %q, want %q", tok.ChatTemplate(), "yes")
	}
	write(t, dir, templateFile, []byte("newer"))
	if tok, err = FromFolder(dir); err != nil || tok.ChatTemplate() != "newer" {
		t.Errorf("chat template %q, error %v; want the newer file's", tok.ChatTemplate(), err)
	}
}

func TestFolderRefuses(t *testing.T) {
	model := func(changes map[string]any) map[string]any {
		m := map[string]any{"type": "BPE", "vocab": map[string]int{"a": 0, "b": 1, "ab": 2}, "merges": []string{"a b"}}
		for k, v := range changes {
			m[k] = v
		}
		return map[string]any{"model": m, "added_tokens": nil}
	}
	for _, c := range []struct {
		name, settings string
		file           map[string]any
		want           string
	}{
		{"no BPE", "", model(map[string]any{"type": "Unigram"}), `"Unigram"`},
		{"no model", "", map[string]any{"model": nil}, `"model" is absent`},
		{"merge of nothing", "", model(map[string]any{"merges": []string{"a x"}}), `merge 0: "a" and "x"`},
		{"merge of one", "", model(map[string]any{"merges": []string{"ab"}}), "merge 0"},
		{"two tokens with one id", "", model(map[string]any{"vocab": map[string]int{"a": 0, "b": 0}}), "same id 0"},
		{"wild id", "", model(map[string]any{"vocab": map[string]int{"a": 1 << 40}}), "want 0 to"},
		{"negative id", "", model(map[string]any{"vocab": map[string]int{"a": -1}}), "-1"},
		{"empty vocabulary", "", model(map[string]any{"vocab": map[string]int{}, "merges": nil}), "empty"},
		{"byte fallback without bytes", "", model(map[string]any{"byte_fallback": true}), "<0x00>"},
		{"unknown token", "", model(map[string]any{"unk_token": "<unk>"}), `"<unk>"`},
		{"dropout", "", model(map[string]any{"dropout": 0.1}), "dropout"},
		{"normalizer", "", map[string]any{"normalizer": map[string]any{"type": "BertNormalizer"}}, `"BertNormalizer"`},
		{"pre-tokenizer", "", map[string]any{"pre_tokenizer": map[string]any{"type": "UnicodeScripts"}}, `"UnicodeScripts"`},
		{"pattern", "", map[string]any{"pre_tokenizer": map[string]any{"type": "Split", "behavior": "Isolated",
			"pattern": map[string]any{"Regex": `(?<=a)b`}}}, `(?<=a)b`},
		{"decoder", "", map[string]any{"decoder": map[string]any{"type": "WordPiece"}}, `"WordPiece"`},
		{"decoder sequence", "", map[string]any{"decoder": map[string]any{"type": "Sequence", "decoders": []any{map[string]any{"type": "Fuse"}}}}, "Fuse"},
		{"template", "", map[string]any{"post_processor": map[string]any{"type": "TemplateProcessing",
			"single": []any{map[string]any{"SpecialToken": map[string]any{"id": "<x>"}}}}}, `"<x>"`},
		{"added token", "", map[string]any{"added_tokens": []any{map[string]any{"id": -3, "content": "x"}}}, "id -3"},
		{"settings", `{"bos_token": `, nil, settingsFile},
		{"token of the settings", `{"bos_token": 5}`, nil, "came 5, want a token's name"},
		{"id of the settings", `{"added_tokens_decoder": {"x": {}}}`, nil, `"x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := FromFolder(tinyFolder(t, c.file, c.settings))
			refused(t, err, c.want)
		})
	}
	empty := t.TempDir()
	_, err := FromFolder(empty)
	refused(t, err, "no tokenizer.json and no tokenizer.model")
	write(t, empty, jsonFile, []byte("{"))
	_, err = FromFolder(empty)
	refused(t, err, jsonFile)
}

func TestSentencePieceRefuses(t *testing.T) {
	good := testdata(t, "llama2-tokenizer.model.gz")
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"no pieces":    {},
		"cut off":      good[:len(good)/2],
		"not protobuf": []byte("this is a text and no model"),
		// Field 2 (trainer_spec) with model_type 1, merged over the one before: unigram.
		"unigram": append(slices.Clone(good), 0x12, 0x02, 0x18, 0x01),
		// Field 3 (normalizer_spec) with a table of replacements under the name x.
		"normalizer": append(slices.Clone(good), 0x1A, 0x06, 0x0A, 0x01, 'x', 0x12, 0x01, 0x00),
	} {
		write(t, dir, modelFile, data)
		_, err := FromFolder(dir)
		if err == nil || !usererr.Is(err) || !strings.Contains(err.Error(), modelFile) {
			t.Errorf("%s: error %v, want bad input that names %s", name, err, modelFile)
		}
	}
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !usererr.Is(err) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line of bad input with %q", err, want)
	}
}

// Whatever a tokenizer.json holds, it is refused in one line or it encodes and decodes without a
// panic.
func FuzzTokenizerJSON(f *testing.F) {
	f.Add(tinyJSON(f, nil), "abcd <s>é")
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","a"]]},"decoder":{"type":"ByteLevel"}}`), "aa")
	for _, change := range stageSeeds() {
		f.Add(tinyJSON(f, change), "ab  <s>é cd")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := parseJSON(data)
		if err != nil {
			if !usererr.Is(err) {
				t.Errorf("not marked as bad input: %v", err)
			}
			return
		}
		ids := tok.Encode(text)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Errorf("id %d of a vocabulary of %d", id, tok.VocabSize())
			}
		}
		tok.Decode(ids, false)
	})
}

// Any text survives the way to SmolLM2's ids and back, and special names in it are plain text when
// asked. Only the few bytes that its vocabulary lacks, control characters such as 0x13, are lost,
// as with Hugging Face's tokenizers.
func FuzzRoundTrip(f *testing.F) {
	tok := smallModel(f)
	for _, text := range []string{"", "Hello, world", "\xff\xfe", "a\u0301 \U0001F999", "  \t\n ", "<|im_end|>"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids := tok.EncodeWith(text, EncodeOptions{SplitSpecialTokens: true})
		var kept []byte
		for _, b := range []byte(validUTF8(text)) {
			if _, found := tok.ID(string(byteCharacter[b])); found {
				kept = append(kept, b)
			}
		}
		if got, want := tok.Decode(ids, false), lossyUTF8(kept); got != want {
			t.Errorf("%q came back as %q", want, got)
		}
		for _, id := range ids {
			if tok.IsSpecial(id) {
				t.Errorf("special token %d in %q", id, text)
			}
		}
	})
}

// The time to encode a whole book as one word, as Llama-2's tokenizer has it, must not grow with
// its square.
func BenchmarkEncodeLlama2(b *testing.B) {
	tok, err := parseJSON(llama2JSON(b))
	if err != nil {
		b.Fatal(err)
	}
	book := strings.Repeat("Call me Ishmael. Some years ago, never mind how long precisely, 1851 or so — ", 2000)
	b.SetBytes(int64(len(book)))
	for b.Loop() {
		tok.Encode(book)
	}
}

func BenchmarkEncodeSmolLM2(b *testing.B) {
	tok := smallModel(b)
	text := strings.Repeat("func f(x int) int {\n\treturn x + 12345 // it's all 'quoted', isn't it?\n}\n\n", 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}
