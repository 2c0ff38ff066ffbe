package passkey

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/smallmodel"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func words(tok *tokenizer.Tokenizer, ids []tokenizer.Token) string {
	return tok.Decode(ids, false)
}

// A trial is as long as it may be, has its key once in a sentence at its depth, and the question,
// without the key, where it ends.
func TestTrialHidesItsKeyAtItsDepth(t *testing.T) {
	_, tok := smallmodel.Open(t)
	const length = 600
	trials, err := Trials(t.Context(), tok, length, 2*len(Depths), 3)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, trial := range trials {
		text, tail := words(tok, trial.Text), words(tok, trial.Tail)
		if n := len(trial.Text) + len(trial.Tail); n != trial.Length || n > length || n < length-20 {
			t.Errorf("trial %d: %d tokens, said to be %d, wanted nearly %d", i, n, trial.Length, length)
		}
		if trial.Depth != Depths[i%len(Depths)] || seen[trial.Key] || len(trial.Key) != 5 {
			t.Errorf("trial %d: key %s at depth %g", i, trial.Key, trial.Depth)
		}
		seen[trial.Key] = true
		sentence := "The pass key is " + trial.Key + ". Remember it. " + trial.Key + " is the pass key."
		if strings.Count(text, trial.Key) != 2 || strings.Count(text, sentence) != 1 {
			t.Errorf("trial %d: the key %s is not hidden in\n%s", i, trial.Key, text)
		}
		begin := strings.Index(text, opening) + len(opening)
		if at := float64(strings.Index(text, sentence)-begin) / float64(len(text)-len(sentence)-begin); at < trial.Depth-0.03 || at > trial.Depth+0.03 {
			t.Errorf("trial %d: the key is at %.3f of the text, wanted %g", i, at, trial.Depth)
		}
		ask, isAnswer := strings.CutSuffix(tail, trial.Key)
		if !isAnswer || strings.Contains(ask, trial.Key) || !strings.Contains(ask, question) || !strings.HasSuffix(ask, "assistant\n"+answer) {
			t.Errorf("trial %d: the tail is %q", i, tail)
		}
		if last := words(tok, trial.Tail[len(trial.Tail)-trial.Last:]); last != trial.Key {
			t.Errorf("trial %d: its last tokens are %q, wanted the key %s", i, last, trial.Key)
		}
	}
	again, err := Trials(t.Context(), tok, length, 2, 3)
	if err != nil || !slices.Equal(again[1].Text, trials[1].Text) || slices.Equal(again[0].Text, again[1].Text) {
		t.Errorf("the same seed has to give the same texts, each of its own: %v", err)
	}
	if other, err := Trials(t.Context(), tok, length, 1, 4); err != nil || other[0].Key == trials[0].Key {
		t.Errorf("another seed gave the same key: %v", err)
	}
	if _, err := Trials(t.Context(), tok, 30, 1, 0); !usererr.Is(err) {
		t.Errorf("a text of 30 tokens gave %v", err)
	}
}

func TestCountWantsTheWholeKey(t *testing.T) {
	trials := []Trial{{Last: 5}, {Last: 5}, {Last: 2}, {Last: 5}}
	if n := Count(trials, []int{5, 4, 2, 0}); n != 2 {
		t.Errorf("%d keys found, wanted 2", n)
	}
}

// The key of a tail "1 2 3 4" whose last two tokens count is found by 3 4 alone, whatever stands
// before and after it.
func TestHitsByHand(t *testing.T) {
	trial := Trial{Tail: []int32{1, 2, 3, 4}, Last: 2}
	for _, c := range []struct {
		written []int32
		want    int
	}{{[]int32{1, 2, 3, 4}, 2}, {[]int32{9, 9, 3, 4, 7}, 2}, {[]int32{1, 2, 3, 5}, 1}, {[]int32{1, 2, 5, 4}, 1}, {[]int32{1, 2, 4, 3}, 0}, {[]int32{3, 4, 1, 2}, 0}} {
		if got := trial.hits(func(place int) int32 { return c.written[place] }); got != c.want {
			t.Errorf("%v has %d tokens of the key, want %d", c.written, got, c.want)
		}
	}
}

// Rows are padded on the left, where the mask says so.
func TestPadKeepsTheEnds(t *testing.T) {
	b := pad([]Trial{{Text: []int32{7, 8, 9}}, {Text: []int32{5}}})
	ids, mask := b.IDs, b.Mask
	if !slices.Equal(ids[1], []int32{0, 0, 5}) || !slices.Equal(mask[1], []int32{0, 0, 1}) || !slices.Equal(ids[0], []int32{7, 8, 9}) || !slices.Equal(mask[0], []int32{1, 1, 1}) {
		t.Errorf("ids %v, mask %v", ids, mask)
	}
}

// The real model finds the keys of short texts, and through the preset balanced as many as in full
// precision.
func TestPasskeyFoundWithPresetBalanced(t *testing.T) {
	testlane.Slow(t, "the small model, with two caches")
	backend := testbackend.XLA(t)
	files, tok := smallmodel.Open(t)
	trials, err := Trials(t.Context(), tok, 192, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	model, err := files.Load(backend, llama.LoadOptions{DType: dtypes.Float32, Weights: llama.PlainWeights})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Finalize()
	find := func(c kvq.Config) int {
		g, err := llama.NewGenerator(model, c)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Finalize()
		found, _, err := Measure(context.Background(), g, trials, len(trials))
		if err != nil {
			t.Fatal(err)
		}
		return Count(trials, found)
	}
	balanced, err := kvq.Preset("balanced")
	if err != nil {
		t.Fatal(err)
	}
	full, quantized := find(kvq.Config{}), find(balanced)
	if full < 2 || quantized != full {
		t.Errorf("full precision found %d of %d keys, balanced %d; wanted nearly all, and as many", full, len(trials), quantized)
	}
}
