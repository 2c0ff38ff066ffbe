package judge

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

var (
	forms  = []string{"story", "letter", "speech", "report", "essay", "guide", "play", "diary"}
	topics = []string{"a train in the mountains", "the history of bread", "a garden in winter", "two brothers and a boat", "a school in a small town", "how rivers are made",
		"a lost dog", "the first day at work", "a market in the rain", "why birds sing", "the house on the hill", "a journey to the sea", "an old clock", "learning to swim",
		"a library at night", "the work of a baker", "a bridge over a river", "the moon and the tides", "a festival in spring", "the night bus"}
)

// Prompts asks a model to write, count times something else, all prompts of one number of tokens,
// so that rows need no padding. They are user's messages where there is a chat template.
func Prompts(ctx context.Context, tok *tokenizer.Tokenizer, count int) ([][]tokenizer.Token, error) {
	byLength := map[int][][]tokenizer.Token{}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(forms) * len(topics)) {
		text := fmt.Sprintf("Write a long %s about %s.", forms[i%len(forms)], topics[i/len(forms)])
		var ids []tokenizer.Token
		if tok.ChatTemplate() == "" {
			ids = tok.Encode(text)
		} else {
			prompt, err := tok.ApplyChatTemplate(ctx, []tokenizer.Message{{Role: "user", Content: text}}, true)
			if err != nil {
				return nil, err
			}
			ids = tok.EncodeWith(prompt, tokenizer.EncodeOptions{WithoutSpecialTokens: true})
		}
		byLength[len(ids)] = append(byLength[len(ids)], ids)
	}
	best := 0
	for n, list := range byLength { // the most frequent length, of equal ones the shortest
		if best == 0 || len(list) > len(byLength[best]) || len(list) == len(byLength[best]) && n < best {
			best = n
		}
	}
	if len(byLength[best]) < count {
		return nil, usererr.New("%d prompts of one length, there are %d with this tokenizer", count, len(byLength[best]))
	}
	return byLength[best][:count], nil
}
