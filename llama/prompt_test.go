package llama

import (
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func TestResizeMovesPaddingOnly(t *testing.T) {
	p, err := newPrompt(tokenizer.Batch{IDs: [][]int32{{9, 9, 5, 6}, {9, 4, 5, 6}}, Mask: [][]int32{{0, 0, 1, 1}, {0, 1, 1, 1}}}, Config{VocabSize: 10, MaxPositions: 8})
	if err != nil {
		t.Fatal(err)
	}
	// One column was padding in both rows. Padding becomes token 0.
	if p.length != 3 || p.longest != 3 || !slices.Equal(p.ids[0], []int32{0, 5, 6}) || !slices.Equal(p.start, []int32{1, 0}) {
		t.Errorf("got %+v", p)
	}
	if q := p.resize(5); !slices.Equal(q.ids[1], []int32{0, 0, 4, 5, 6}) || !slices.Equal(q.start, []int32{3, 2}) {
		t.Errorf("five columns: %+v", q)
	}
}

func TestBadPrompts(t *testing.T) {
	c := Config{VocabSize: 10, MaxPositions: 4}
	long := []int32{1, 2, 3, 4, 5}
	for want, in := range map[string]struct{ ids, mask [][]int32 }{
		"no prompt, want at least one":                                                       {nil, nil},
		"prompt 1 is empty, want at least one token":                                         {[][]int32{{1, 2}, {1, 2}}, [][]int32{{1, 1}, {0, 0}}},
		"prompt 0 is empty, want at least one token":                                         {[][]int32{{}}, nil},
		"prompt 0 has 5 tokens, the model reads at most 4":                                   {[][]int32{long}, nil},
		"prompt 1 has 1 columns, prompt 0 has 2: pad the shorter ones on the left":           {[][]int32{{1, 2}, {1}}, nil},
		"attention mask of 1 rows for 2 prompts":                                             {[][]int32{{1}, {2}}, [][]int32{{1}}},
		"attention mask of prompt 0: 1 columns, want 2":                                      {[][]int32{{1, 2}}, [][]int32{{1}}},
		"attention mask of prompt 0: 0 at column 1 after a 1, want padding on the left only": {[][]int32{{1, 2}}, [][]int32{{1, 0}}},
		"attention mask of prompt 0: 2 at column 0, want 0 or 1":                             {[][]int32{{1, 2}}, [][]int32{{2, 1}}},
		"prompt 0 has token id 10 at column 1, want 0 to 9":                                  {[][]int32{{1, 10}}, nil},
		"prompt 0 has token id -1 at column 0, want 0 to 9":                                  {[][]int32{{-1, 1}}, nil},
	} {
		_, err := newPrompt(tokenizer.Batch{IDs: in.ids, Mask: in.mask}, c)
		if err == nil || err.Error() != want || !usererr.Is(err) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Padding may make the batch longer than the context, and hold any number.
	if _, err := newPrompt(tokenizer.Batch{IDs: [][]int32{{-7, 1, 2, 3, 4}}, Mask: [][]int32{{0, 1, 1, 1, 1}}}, c); err != nil {
		t.Error(err)
	}
}

func TestBadSettings(t *testing.T) {
	c := Config{VocabSize: 10, MaxPositions: 4}
	good := GenerateConfig{DoSample: true, Temperature: 1, TopP: 1, MaxNewTokens: 3}
	if err := good.Validate(c); err != nil {
		t.Error(err)
	}
	if err := (GenerateConfig{DoSample: true}).Validate(c); err != nil { // zero values are defaults
		t.Error(err)
	}
	for want, change := range map[string]func(*GenerateConfig){
		"max_new_tokens = -1, want at least 1":               func(gc *GenerateConfig) { gc.MaxNewTokens = -1 },
		"min_new_tokens = 4, want 0 to max_new_tokens = 3":   func(gc *GenerateConfig) { gc.MinNewTokens = 4 },
		"min_new_tokens = -1, want 0":                        func(gc *GenerateConfig) { gc.MinNewTokens = -1 },
		"temperature = -1, want above 0":                     func(gc *GenerateConfig) { gc.Temperature = -1 },
		"temperature = NaN, want above 0":                    func(gc *GenerateConfig) { gc.Temperature = nan() },
		"top_p = -1, want above 0 and at most 1":             func(gc *GenerateConfig) { gc.TopP = -1 },
		"min_new_tokens = 21, want 0 to max_new_tokens = 20": func(gc *GenerateConfig) { gc.MaxNewTokens, gc.MinNewTokens = 0, 21 },
		"top_p = 1.5, want above 0 and at most 1":            func(gc *GenerateConfig) { gc.TopP = 1.5 },
		"top_p = NaN, want above 0 and at most 1":            func(gc *GenerateConfig) { gc.TopP = nan() },
		"top_k = -1, want 0 (no limit) or more":              func(gc *GenerateConfig) { gc.TopK = -1 },
		"eos token id 10, want 0 to 9":                       func(gc *GenerateConfig) { gc.EOS = []tokenizer.Token{2, 10} },
		"pad token id -1, want 0 to 9":                       func(gc *GenerateConfig) { gc.PadID = new(tokenizer.Token(-1)) },
		"block size 129, want 0 (chosen by time) to 128":     func(gc *GenerateConfig) { gc.BlockSize = 129 },
	} {
		gc := good
		change(&gc)
		err := gc.Validate(c)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") || !usererr.Is(err) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }
