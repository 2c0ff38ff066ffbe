package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
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
			Generated [][]int  `json:"generated_ids"`
			Texts     []string `json:"text_new"`
		}
	}
	tok := smallModel(t)
	readJSON(t, goldens(t, "smollm2", "prompts.json"), &g)
	ids, mask, err := tok.EncodeBatch(g.Prompts, Padding{ID: tok.EOS()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.IDs, ids); diff != "" {
		t.Errorf("input_ids (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(g.Mask, mask); diff != "" {
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

// The four texts of the quality goldens: 576 tokens each of English, a licence and program documentation.
func TestQualityTexts(t *testing.T) {
	tok := smallModel(t)
	var tokens struct {
		Names []string
		IDs   [][]int
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
