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
		for _, t := range batch {
			tails = append(tails, t.Tail)
		}
		r, err := g.Generate(ctx, pad(batch), llama.GenerateConfig{TeacherForced: tails, KeepLogits: true})
		if err != nil {
			return nil, compile, err
		}
		compile += r.Timing.Compile
		for i, t := range batch {
			n := 0
			for j := len(t.Tail) - t.Last; j < len(t.Tail); j++ {
				if mostLikely(r.Logits[j][i]) == t.Tail[j] {
					n++
				}
			}
			found = append(found, n)
		}
	}
	return found, compile, nil
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
