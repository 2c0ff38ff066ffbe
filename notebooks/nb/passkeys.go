package nb

import (
	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Hidden is a number in a text, and how much of it was found.
type Hidden struct {
	Number        string
	Depth         float64 // where it stands: 0 at the beginning of the text, 1 at its end
	Tokens, Found int     // of the number
}

// Find hides numbers of five digits in made-up texts of at most length tokens, one a text, and asks
// for them at the end, as `kvq passkey` does: the text goes in at once; question and answer follow
// token by token, through the cache.
func Find(live *Live, g *llama.Generator, tok *tokenizer.Tokenizer, length, numbers int) (list []Hidden) {
	ctx := live.Context()
	trials := Must(passkey.Trials(ctx, tok, length, numbers, 1))
	found, _, err := passkey.Measure(ctx, g, trials, numbers)
	Check(err)
	for i, t := range trials {
		list = append(list, Hidden{t.Key, t.Depth, t.Last, found[i]})
	}
	return list
}
