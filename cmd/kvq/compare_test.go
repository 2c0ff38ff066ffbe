package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
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
	quantized := &llama.Result{Stop: llama.StopLength, Cache: kvq.Memory{Codes: 500, Scales: 60, Zeros: 70, Window: 800, Index: 20}}
	c := &comparison{sides: [2]*sideRun{
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
		for _, want := range []string{"│ full precision", "│ quanto 4 bit g32 r64", "Another. the same", "[1] they part at new token 161:", "[2] the same 8 tokens",
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
