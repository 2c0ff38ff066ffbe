package tokenizer

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/go-huggingface/models/gguf"
	"github.com/google/go-cmp/cmp"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// smallModel is the tokenizer of the set-up's GGUF file (SmolLM2).
func smallModel(t testing.TB) *Tokenizer {
	t.Helper()
	path, err := asset.SmallModel()
	if err != nil {
		t.Skipf("no small model: %v", err)
	}
	file, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := FromGGUF(file)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func goldens(t testing.TB, name ...string) string {
	t.Helper()
	dir, err := asset.Goldens()
	if err != nil {
		t.Skipf("no goldens: %v", err)
	}
	return filepath.Join(append([]string{dir}, name...)...)
}

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// The tutorial's two prompts, as transformers pads them and as it decodes what it generated.
func TestTutorialPrompts(t *testing.T) {
	var g struct {
		Prompts  []string
		IDs      [][]int32 `json:"input_ids"`
		Mask     [][]int32 `json:"attention_mask"`
		Variants map[string]struct {
			Generated [][]Token `json:"generated_ids"`
			Texts     []string  `json:"text_new"`
		}
	}
	tok := smallModel(t)
	readJSON(t, goldens(t, "smollm2", "prompts.json"), &g)
	batch, err := tok.EncodeBatch(g.Prompts, Padding{ID: new(tok.EOS())})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.IDs, batch.IDs); diff != "" {
		t.Errorf("input_ids (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(g.Mask, batch.Mask); diff != "" {
		t.Errorf("attention_mask (-want +got):\n%s", diff)
	}
	compared := 0
	for name, v := range g.Variants {
		if len(v.Generated) == 0 {
			continue // a variant that failed in transformers
		}
		compared++
		if diff := cmp.Diff(v.Texts, tok.BatchDecode(v.Generated, true)); diff != "" {
			t.Errorf("%s: texts (-want +got):\n%s", name, diff)
		}
	}
	if compared < 10 {
		t.Errorf("only %d variants have generated ids", compared)
	}
}

// The four texts of the quality goldens: 576 tokens each of English, a licence and program
// documentation.
func TestQualityTexts(t *testing.T) {
	tok := smallModel(t)
	var tokens struct {
		Names []string
		IDs   [][]Token
	}
	readJSON(t, goldens(t, "quality", "tokens.json"), &tokens)
	if len(tokens.Names) != 4 || len(tokens.IDs) != 4 {
		t.Fatalf("%d texts with %d rows of ids, want 4", len(tokens.Names), len(tokens.IDs))
	}
	for i, name := range tokens.Names {
		want := tokens.IDs[i]
		text, err := os.ReadFile(goldens(t, "quality", "texts", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		got := tok.Encode(string(text))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if back := tok.Decode(got, false); back != string(text) {
			t.Errorf("%s does not come back from its ids", name)
		}
	}
}

// What a GGUF file's metadata may say wrongly, each in one line.
func TestGGUFRefuses(t *testing.T) {
	good := map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": []string{"a", "b", "ab"},
		"tokenizer.ggml.token_type": []int32{1, 1, 1}, "tokenizer.ggml.merges": []string{"a b"},
	}
	open := func(changes map[string]any) (*Tokenizer, error) {
		metadata := maps.Clone(good)
		for key, value := range changes {
			if metadata["tokenizer.ggml."+key] = value; value == nil {
				delete(metadata, "tokenizer.ggml."+key)
			}
		}
		dir := t.TempDir()
		write(t, dir, "x.gguf", ggufBytes(t, metadata))
		file, err := gguf.Open(filepath.Join(dir, "x.gguf"))
		if err != nil {
			t.Fatal(err)
		}
		return FromGGUF(file)
	}
	if tok, err := open(nil); err != nil || !slices.Equal(tok.Encode("aab"), []Token{0, 2}) {
		t.Fatalf("the good file: %v", err)
	}
	for _, c := range []struct {
		key   string
		value any
		want  string
	}{
		{"model", "bert", `"bert"`},
		{"model", "llama", "0 scores for 3 tokens"},
		{"pre", "superbpe", `"superbpe"`},
		{"pre", "kimi-k2", "tokenizer.ggml.pre"},
		{"tokens", nil, `"tokenizer.ggml.tokens" is absent`},
		{"tokens", []string{"a", "a", "ab"}, `"a" has two ids`},
		{"token_type", []int32{1}, "1 entries, want 3"},
		{"merges", nil, `"tokenizer.ggml.merges" is absent`},
		{"merges", []string{"a x"}, "merge 0"},
	} {
		_, err := open(map[string]any{c.key: c.value})
		refused(t, err, c.want)
		if err != nil && !strings.Contains(err.Error(), "x.gguf") {
			t.Errorf("%v does not name the file", err)
		}
	}
}

// Llama-3's files: BOS is added unless the file says otherwise, and a word that is a token is not
// taken apart.
func TestGGUFLlama3(t *testing.T) {
	metadata := map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": uint32(4),
		"tokenizer.ggml.tokens":     []string{"a", "b", "c", "abc", "<|begin_of_text|>"},
		"tokenizer.ggml.token_type": []int32{1, 1, 1, 1, 3}, "tokenizer.ggml.merges": []string{"a bc"},
	}
	metadata["tokenizer.ggml.tokens"] = append(metadata["tokenizer.ggml.tokens"].([]string), "bc")
	metadata["tokenizer.ggml.token_type"] = append(metadata["tokenizer.ggml.token_type"].([]int32), 1)
	for _, c := range []struct {
		addBOS any
		want   []Token
	}{{nil, []Token{4, 3}}, {false, []Token{3}}, {true, []Token{4, 3}}} {
		if c.addBOS != nil {
			metadata["tokenizer.ggml.add_bos_token"] = c.addBOS
		}
		dir := t.TempDir()
		write(t, dir, "x.gguf", ggufBytes(t, metadata))
		file, err := gguf.Open(filepath.Join(dir, "x.gguf"))
		if err != nil {
			t.Fatal(err)
		}
		tok, err := FromGGUF(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Encode("abc"); !slices.Equal(got, c.want) {
			t.Errorf("add_bos_token %v: %v, want %v", c.addBOS, got, c.want)
		}
	}
}
