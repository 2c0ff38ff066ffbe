package decoder_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/kvq"
)

// Speculative decoding (Leviathan et al. 2022, arXiv 2211.17192), greedily: a draft model guesses a
// few tokens, the model reads them all in one step, and Crop takes back those that it would not
// have made. The tokens are the model's own, in fewer of its steps. Here the draft is the same
// model with a cache of 4 bits.
func Example_speculative() {
	const guesses, newTokens = 4, 16
	prompt := []int32{17, 4, 65, 30, 11, 90, 2, 55}
	ctx := context.Background()
	model, draft := newSession(kvq.Config{}, 1), newSession(kvq.Tutorial(), 1)
	defer model.Finalize()
	defer draft.Finalize()
	choices := func(s *kvq.Session, tokens ...int32) []int32 { // the best token after each of tokens
		out, err := s.Step(ctx, [][]int32{tokens})
		check(err)
		var best []int32
		for logits := range slices.Chunk(tensors.MustCopyFlatData[float32](out[0]), small.Vocabulary) {
			best = append(best, argmax(logits))
		}
		return best
	}
	last := func(s []int32) int32 { return s[len(s)-1] }

	newest := last(choices(model, prompt...))
	choices(draft, prompt...)
	text, steps := []int32{newest}, 0
	for len(text) < newTokens {
		// The draft reads the newest token and its own guesses.
		guess := []int32{}
		for token := newest; len(guess) < guesses; guess = append(guess, token) {
			token = last(choices(draft, token))
		}
		choices(draft, last(guess))
		// The model's own choice after the newest token, and after each guess.
		own := choices(model, append([]int32{newest}, guess...)...)
		steps++
		right := 0
		for right < guesses && guess[right] == own[right] {
			right++
		}
		text = append(text, own[:right+1]...)
		newest = own[right]
		check(model.Crop(ctx, guesses-right))
		check(draft.Crop(ctx, guesses-right))
	}
	fmt.Println(text[:newTokens])

	alone := newSession(kvq.Config{}, 1)
	defer alone.Finalize()
	_, err := alone.Prefill(ctx, [][]int32{prompt})
	check(err)
	rows, err := alone.Generate(ctx, kvq.Generation{MaxTokens: newTokens})
	check(err)
	fmt.Println(rows[0])
	fmt.Println("steps of the model:", steps, "instead of", newTokens-1)
	// Output:
	// [73 26 20 51 73 70 20 4 30 73 26 30 73 4 30 73]
	// [73 26 20 51 73 70 20 4 30 73 26 30 73 4 30 73]
	// steps of the model: 4 instead of 15
}
