package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// sideOf is a side of a comparison with the characters of text as tokens.
func sideOf(config kvq.Config, result *llama.Result, texts ...string) *sideRun {
	s := &sideRun{config: config, result: result, texts: &newTexts{}}
	for _, text := range texts {
		var ids []int32
		var pieces []string
		for _, r := range text {
			ids, pieces = append(ids, r), append(pieces, string(r))
		}
		s.texts.ids, s.texts.pieces = append(s.texts.ids, ids), append(s.texts.pieces, pieces)
	}
	return s
}

func TestPartAt(t *testing.T) {
	done := &llama.Result{Stop: llama.StopLength}
	cancelled := &llama.Result{Stop: llama.StopCancelled}
	for _, c := range []struct {
		full, quantized string
		result          *llama.Result // of the quantized side
		want            int
		verdict         string
	}{
		{"hello", "hello", done, -1, "the same 5 tokens"},
		{"hello", "help!", done, 3, `they part at new token 4: "l" in full precision, "p" quantized`},
		{"hello", "jello", done, 0, `they part at new token 1: "h" in full precision, "j" quantized`},
		{"hello", "he", done, 2, `they part at new token 3: "l" in full precision, the end quantized`},
		{"he", "hello", done, 2, `they part at new token 3: the end in full precision, "l" quantized`},
		{"hello", "he", cancelled, -1, "the same 2 tokens before the interruption"},
		{"hello", "", nil, -1, "the same 0 tokens before the interruption"},
		{"hello", "hx", cancelled, 1, `they part at new token 2: "e" in full precision, "x" quantized`},
	} {
		cmp := &comparison{sides: [2]*sideRun{sideOf(kvq.Config{}, done, c.full), sideOf(kvq.Tutorial(), c.result, c.quantized)}}
		if got := cmp.partAt(0); got != c.want {
			t.Errorf("%q and %q part at %d, want %d", c.full, c.quantized, got, c.want)
		}
		if got := cmp.verdict(0); got != c.verdict {
			t.Errorf("%q and %q: %q, want %q", c.full, c.quantized, got, c.verdict)
		}
	}
}

// Side by side: both texts with the mark where they part, the bytes of both caches by part, nothing
// wider than the terminal, no character that it would obey.
func TestComparePrint(t *testing.T) {
	long := strings.Repeat("wide 世界 ", 20)
	full := &llama.Result{Stop: llama.StopLength, Cache: kvq.Memory{Full: 4000, Index: 8}}
	quantized := &llama.Result{Stop: llama.StopLength, Cache: kvq.Memory{Codes: 500, Scales: 60, Zeros: 70, Window: 800, Index: 20},
		Slots: 128, CodedTokens: []int{2, 0}, Tokens: [][]int32{make([]int32, 20), make([]int32, 20)}}
	prompts := tokenizer.Batch{IDs: [][]int32{{5, 6, 7}, {0, 0, 8}}, Mask: [][]int32{{1, 1, 1}, {0, 0, 1}}}
	c := &comparison{request: &textRequest{batch: &batch{Batch: prompts}}, sides: [2]*sideRun{
		sideOf(kvq.Config{}, full, long+"one\x1b[2J", "the same"),
		sideOf(kvq.Tutorial(), quantized, long+"two", "the same"),
	}}
	for _, wide := range []int{60, 61, 100} {
		t.Setenv("COLUMNS", fmt.Sprint(wide))
		var b bytes.Buffer
		if err := c.print(&b, []string{"Prompt. ", "Another. "}); err != nil {
			t.Fatal(err)
		}
		out := b.String()
		for _, want := range []string{"│ full precision", "│ quanto 4 bit g32 r64", "Another. the same", "[1] they part at new token 161:", "[2] the same 8 tokens; 0 of 20 tokens in codes",
			"; 2 of 22 tokens in codes", "128 tokens",
			"│ 4,000 (3.9 KiB)", "│ 500", "│ 60", "│ 70", "│ 800", "│ 4,008 (3.9 KiB) │ 1,450 (1.4 KiB)", "quanto 4 bit g32 r64: load"} {
			if !strings.Contains(out, want) {
				t.Errorf("%d columns: want %q in\n%s", wide, want, out)
			}
		}
		if n := strings.Count(out, partMark); n != 2 {
			t.Errorf("%d marks, want one in each text of the first prompt:\n%s", n, out)
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("an escape sequence of the model reaches the terminal: %q", out)
		}
		texts, _, _ := strings.Cut(out, "[1]")
		for _, line := range strings.Split(texts, "\n") {
			if n := cells(line); n > wide {
				t.Errorf("%d columns, want at most %d: %q", n, wide, line)
			}
		}
	}
}

// cells is how many columns a line takes; the Chinese characters of these tests take two.
func cells(line string) int {
	n := 0
	for _, r := range line {
		if n++; r >= 0x4e00 && r < 0xa000 {
			n++
		}
	}
	return n
}

// A long prompt does not push its texts off the screen.
func TestEndOf(t *testing.T) {
	if got := endOf("short"); got != "short" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("abc 世界 ", 100)
	got := endOf(long)
	if n := utf8.RuneCountInString(got); n > shownOfPrompt+2 || n < shownOfPrompt-10 || !strings.HasPrefix(got, "… abc") && !strings.HasPrefix(got, "… 世界") ||
		!strings.HasSuffix(long, strings.TrimPrefix(got, "… ")) {
		t.Errorf("%d characters: %q", n, got)
	}
}

// A quantized cache that has quantized nothing proves nothing, and is said to.
func TestWarnIfExact(t *testing.T) {
	preset, err := kvq.Preset("lowest")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config kvq.Config
		coded  []int
		warned bool
	}{
		{kvq.Config{}, []int{0, 0}, false},
		{preset, []int{0, 0}, true},
		{preset, []int{0, 32}, false},
		{preset, nil, false}, // not known
	} {
		var b strings.Builder
		warnIfExact(&b, c.config, &llama.Result{CodedTokens: c.coded})
		if got := b.String(); (got != "") != c.warned || c.warned && !strings.Contains(got, "window of 64 tokens, 4 sinks") {
			t.Errorf("%s with %v in codes: %q", c.config, c.coded, got)
		}
	}
}

// With a preset the built-in text is longer than its window, and prompts that were given stay.
func TestPresetDefaults(t *testing.T) {
	var f textFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.register(fs)
	f.presetDefaults(fs)
	if f.generate.MaxNewTokens != presetTokens || len(f.prompts.prompts) != 1 || len(f.prompts.prompts[0]) < 800 {
		t.Errorf("%d new tokens after %q", f.generate.MaxNewTokens, f.prompts.prompts)
	}
	f.prompts.prompts, f.generate.MaxNewTokens = []string{"mine"}, 7
	if f.presetDefaults(fs); f.prompts.prompts[0] != "mine" || f.generate.MaxNewTokens != 7 {
		t.Errorf("%d new tokens after %q", f.generate.MaxNewTokens, f.prompts.prompts)
	}
}
