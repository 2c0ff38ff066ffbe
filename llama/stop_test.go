package llama

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// penalizedBest is the most likely token of raw logits after a penalty for those of the text, in
// plain Go.
func penalizedBest(logits []float32, text []tokenizer.Token, window int, penalty float32) tokenizer.Token {
	if window > 0 {
		text = text[max(0, len(text)-window):]
	}
	best, score := 0, float32(0)
	for id, x := range logits {
		if slices.Contains(text, tokenizer.Token(id)) {
			if x < 0 {
				x *= penalty
			} else {
				x /= penalty
			}
		}
		if id == 0 || x > score {
			best, score = id, x
		}
	}
	return tokenizer.Token(best)
}

// Every token of a greedy generation with a penalty is the one that plain Go picks from the logits
// before the penalty, over calls of the loop of any size; and the penalty does something.
func TestRepetitionPenaltyInTheLoop(t *testing.T) {
	testlane.OnlyAll(t, "compiles a loop for each window; pick.TestHistoryEqualsTheText is its core")
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	ids, mask := [][]int32{{0, 0, 9, 8, 7}, {3, 4, 5, 4, 3}}, [][]int32{{0, 0, 1, 1, 1}, {1, 1, 1, 1, 1}}
	const penalty = 4
	gc := greedy12()
	gc.MaxNewTokens, gc.BlockSize = 30, 7
	plain := mustGenerate(t, g, ids, mask, gc)
	for _, window := range []int{0, 3} {
		gc.RepetitionPenalty, gc.RepetitionWindow = penalty, window
		r := mustGenerate(t, g, ids, mask, gc)
		for row := range ids {
			text := tokenizer.Batch{IDs: ids, Mask: mask}.Row(row)
			for i, got := range r.Tokens[row] {
				if want := penalizedBest(r.Logits[i][row], append(slices.Clone(text), r.Tokens[row][:i]...), window, penalty); got != want {
					t.Fatalf("window %d, row %d: token %d is %d, want %d", window, row, i, got, want)
				}
			}
			if slices.Equal(r.Tokens[row], plain.Tokens[row]) {
				t.Errorf("window %d, row %d: the penalty changes nothing", window, row)
			}
		}
	}
}

// A stop string ends its row with the token that completes it, wherever it lies: over several
// tokens and over calls of the loop. The other rows go on to their own ends.
func TestStopStrings(t *testing.T) {
	g := tinyGenerator(t, "tiny-llama2-gqa", kvq.Config{})
	tok := characterTokenizer(t, g.model.config.VocabSize)
	ids := [][]int32{{9, 8, 7}, {3, 4, 5}}
	gc := GenerateConfig{MaxNewTokens: 24, EOS: []tokenizer.Token{}, Tokenizer: tok}
	if !testlane.All() {
		ids = ids[:1] // compiles for one row alone
	}
	plain := mustGenerate(t, g, ids, nil, gc)
	for _, at := range []int{0, 3, 10} {
		stop := tok.Decode(plain.Tokens[0][at:at+3], true)
		whole := tok.Decode(plain.Tokens[0], true)
		begin := strings.Index(whole, stop) // it may stand there before
		length := len([]rune(whole[:begin])) + 3
		for _, block := range []int{0, 1, 2, 5, 128} {
			what := fmt.Sprintf("stop %q at %d, blocks of %d", stop, at, block)
			gc.StopStrings, gc.BlockSize = []string{"not there", stop}, block
			r := mustGenerate(t, g, ids, nil, gc)
			if !slices.Equal(r.Row(0), plain.Tokens[0][:length]) || len(ids) > 1 && (!slices.Equal(r.Row(1), plain.Tokens[1]) || r.Stop != StopLength) {
				t.Errorf("%s: rows %v, stop %q; want %d tokens of %v", what, r.Tokens, r.Stop, length, plain.Tokens)
			}
			for _, token := range r.Tokens[0][length:] {
				if want := tokenizer.Token(g.model.config.PadID); token != want {
					t.Errorf("%s: %d after the row's end, want padding %d", what, token, want)
				}
			}
			alone := mustGenerate(t, g, ids[:1], nil, gc)
			if !slices.Equal(alone.Tokens[0], plain.Tokens[0][:length]) || alone.Stop != StopString {
				t.Errorf("%s, alone: %v, stop %q", what, alone.Tokens[0], alone.Stop)
			}
			var text strings.Builder
			for piece, err := range g.StreamText(context.Background(), tok, tok.Decode(ids[0], false), gc) {
				if err != nil {
					t.Fatal(err)
				}
				text.WriteString(piece)
			}
			if text.String() != whole[:begin] {
				t.Errorf("%s: text %q, want %q", what, text.String(), whole[:begin])
			}
		}
	}
}

// Bad settings are refused in one line before anything is compiled.
func TestStopAndPenaltyRefusals(t *testing.T) {
	c := Config{VocabSize: 9}
	for want, gc := range map[string]GenerateConfig{
		"min_p = 2":                {DoSample: true, MinP: 2},
		"repetition_penalty = -1":  {RepetitionPenalty: -1},
		"repetition_window = -1":   {RepetitionWindow: -1},
		"an empty stop string":     {StopStrings: []string{""}, Tokenizer: &tokenizer.Tokenizer{}},
		"stop strings without a t": {StopStrings: []string{"x"}},
	} {
		if err := gc.Validate(c); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %q…", gc, err, want)
		}
	}
}

// characterTokenizer has one character for each id, none of them special.
func characterTokenizer(t testing.TB, vocabulary int) *tokenizer.Tokenizer {
	t.Helper()
	dir := t.TempDir()
	fakemodel.CharacterTokenizer(t, dir, vocabulary, "")
	tok, err := tokenizer.FromFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
