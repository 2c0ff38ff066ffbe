package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// words are what lists are made of.
var words = strings.Fields("apple river stone lamp house bird chair road table tree boat horse cloud bread glass shoe clock flower knife window " +
	"garden letter bottle mountain pencil ladder island candle basket button")

// copyWords is how long the list to copy is.
const copyWords = 8

// copyList shows a list of words, then made-up sentences, and wants the list again.
func copyList(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, _ float64) (passkey.Trial, error) {
	var list []string
	for _, i := range r.Perm(len(words))[:copyWords] {
		list = append(list, words[i])
	}
	all := strings.Join(list, ", ")
	return passkey.Fill(tok, r, "a question", length, func(sentences []string) (passkey.Trial, error) {
		return passkey.Ask(ctx, tok, "The list of words is: "+all+".\n\n"+strings.Join(append(sentences, "That is all."), " "), "Write the list of words again.", "The list of words is:", " "+all)
	})
}

// sums shows worked sums, then made-up sentences, and wants one more.
func sums(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, _ float64) (passkey.Trial, error) {
	const examples, least, most = 24, 2, 12
	number := func() int { return least + r.IntN(most-least+1) }
	var worked []string
	for range examples {
		a, b := number(), number()
		worked = append(worked, fmt.Sprintf("%d + %d = %d.", a, b, a+b))
	}
	a, b := number(), number()
	return passkey.Fill(tok, r, "a question", length, func(sentences []string) (passkey.Trial, error) {
		return passkey.Ask(ctx, tok, strings.Join(worked, " ")+"\n\n"+strings.Join(append(sentences, "That is all."), " "),
			fmt.Sprintf("What is %d + %d?", a, b), fmt.Sprintf("%d + %d = ", a, b), fmt.Sprintf("%d.", a+b))
	})
}

// instruction is made-up sentences, and at their end one of two instructions. Whether the model
// stops where it should does not count: the small one hardly ever does.
func instruction(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, _ float64) (passkey.Trial, error) {
	var ask, begin, answer string
	if n := 3 + r.IntN(5); r.IntN(2) == 0 {
		first := 2 + r.IntN(60)
		ask, begin = fmt.Sprintf("Count from %d to %d.", first, first+n), fmt.Sprintf("%d,", first)
		for i := range n {
			answer += fmt.Sprintf(", %d", first+i+1)
		}
	} else {
		var list []string
		for _, i := range r.Perm(len(words))[:n] {
			list = append(list, words[i])
		}
		ask, begin = fmt.Sprintf("Write these words: %s.", strings.Join(list, ", ")), list[0]+","
		answer = ", " + strings.Join(list[1:], ", ")
	}
	return passkey.Fill(tok, r, "a question", length, func(sentences []string) (passkey.Trial, error) {
		return passkey.Ask(ctx, tok, strings.Join(append(sentences, "That is all."), " "), "Now forget this text. "+ask, begin, strings.TrimPrefix(answer, ","))
	})
}
