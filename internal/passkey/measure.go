package passkey

import (
	"context"
	"slices"
	"time"

	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Measure tells, for each trial, how many tokens of the key the model finds through its cache. The
// text goes in at once; the question, the beginning of the answer and the key follow one token a
// step, so that not even the first digit is read from an exact prompt. A token is found if it is
// the most likely one after those before it: a key whose tokens are all found is what greedy
// generation would have written.
//
// rows trials run at a time. compile is the time spent waiting for graphs.
func Measure(ctx context.Context, g *llama.Generator, trials []Trial, rows int) (found []int, compile time.Duration, err error) {
	for batch := range slices.Chunk(trials, rows) {
		var tails [][]tokenizer.Token
		longest := 0
		for _, t := range batch {
			longest = max(longest, len(t.Tail))
		}
		for _, t := range batch { // what comes after a shorter tail is not looked at
			tails = append(tails, slices.Concat(t.Tail, make([]tokenizer.Token, longest-len(t.Tail))))
		}
		r, err := g.Generate(ctx, pad(batch), llama.GenerateConfig{TeacherForced: tails, KeepLogits: true})
		if err != nil {
			return nil, compile, err
		}
		compile += r.Timing.Compile
		for i, t := range batch {
			found = append(found, t.hits(func(place int) tokenizer.Token { return mostLikely(r.Logits[place][i]) }))
		}
	}
	return found, compile, nil
}

// hits counts the tokens of the key that are what would have been written at their place in Tail.
func (t Trial) hits(written func(place int) tokenizer.Token) (n int) {
	for place := len(t.Tail) - t.Last; place < len(t.Tail); place++ {
		if written(place) == t.Tail[place] {
			n++
		}
	}
	return n
}

// Count sums up: the trials whose whole key was found.
func Count(trials []Trial, found []int) int {
	n := 0
	for i, t := range trials {
		if found[i] == t.Last {
			n++
		}
	}
	return n
}

func pad(trials []Trial) (b tokenizer.Batch) {
	width := 0
	for _, t := range trials {
		width = max(width, len(t.Text))
	}
	for _, t := range trials {
		fill := make([]tokenizer.Token, width-len(t.Text))
		b.IDs = append(b.IDs, slices.Concat(fill, t.Text))
		b.Mask = append(b.Mask, slices.Concat(make([]int32, len(fill)), slices.Repeat([]int32{1}, len(t.Text))))
	}
	return b
}

func mostLikely(logits []float32) tokenizer.Token {
	best := 0
	for i, x := range logits {
		if x > logits[best] {
			best = i
		}
	}
	return tokenizer.Token(best)
}
