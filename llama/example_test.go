package llama_test

import (
	"errors"
	"fmt"

	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Settings by transformers' names. Zero values are defaults; what cannot be is an error of one
// line.
func ExampleGenerateConfig() {
	model := llama.Config{VocabSize: 32000, EOS: []int{2}}
	for _, config := range []llama.GenerateConfig{
		{},
		{MaxNewTokens: 100, DoSample: true, Temperature: 0.8, TopK: 50, TopP: 0.9, Seed: 1},
		{MaxNewTokens: 100, EOS: []tokenizer.Token{13}, PadID: new(tokenizer.Token(0))},
		{DoSample: true, TopP: 1.5},
	} {
		err := config.Validate(model)
		fmt.Println(err, errors.Is(err, llama.ErrInput))
	}
	// Output:
	// <nil> false
	// <nil> false
	// <nil> false
	// top_p = 1.5, want above 0 and at most 1 true
}
