// Package passkey checks what a cache remembers of a long text: a number of five digits is hidden
// in it, and the model is asked for it at the end (Mohtashami and Jaggi, Landmark Attention, 2023,
// section 4.2; KVQuant, table 2, does the same for caches).
package passkey

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Trial is one text with a key in it. The zero value is not usable.
type Trial struct {
	Length int     // tokens of text and tail, at most what was asked for
	Depth  float64 // where the key is: 0 at the beginning of the text, 1 at its end
	Key    string

	Text []tokenizer.Token // goes in at once
	Tail []tokenizer.Token // the question, the beginning of the answer and the key
	Last int               // so many last tokens of Tail are the key
}

// Depths of the key, as parts of the text. The newest tokens are in no depth: a cache's window
// would answer for its codes.
var Depths = []float64{0, 0.25, 0.5, 0.75, 0.9}

const (
	opening  = "There is an important pass key hidden inside a lot of irrelevant text. Find it and memorize it. I will ask you for it afterwards."
	hidden   = "The pass key is %s. Remember it. %s is the pass key."
	question = "What is the pass key?"
	answer   = "The pass key is "
)

// filler makes sentences that say nothing; which ones, the random numbers decide.
var filler = struct{ who, does, what, when []string }{
	who: []string{"The grey cat", "An old baker", "My neighbour", "The tall gardener", "A quiet child", "The postman", "Her cousin", "The young teacher",
		"A sailor", "The painter"},
	does: []string{"looked at", "walked past", "talked about", "dreamed of", "waited near", "pointed at", "forgot", "sat beside", "ran around", "liked"},
	what: []string{"the green hill", "a wooden boat", "the empty market", "the red door", "a small garden", "the long river", "an open window", "the stone bridge",
		"a basket of apples", "the quiet harbour"},
	when: []string{"in the morning", "before the rain", "after lunch", "on the way home", "all day long", "when the bell rang", "in the warm sun", "late at night",
		"at the end of summer", "once again"},
}

func sentence(r *rand.Rand) string {
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	return pick(filler.who) + " " + pick(filler.does) + " " + pick(filler.what) + " " + pick(filler.when) + "."
}

// Trials makes texts of at most length tokens, one after the other at each of the depths, every one
// with a key and filler of its own. The same seed gives the same texts. Where the model has a chat
// template, the text and the question are a user's message.
func Trials(ctx context.Context, tok *tokenizer.Tokenizer, length, count int, seed uint64) ([]Trial, error) {
	list := make([]Trial, count)
	for i := range list {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		t, err := newTrial(ctx, tok, r, length, Depths[i%len(Depths)])
		if err != nil {
			return nil, err
		}
		if i > 0 && (len(t.Tail) != len(list[0].Tail) || t.Last != list[0].Last) {
			return nil, fmt.Errorf("passkey: the keys %s and %s have %d and %d tokens with this tokenizer, want as many", list[0].Key, t.Key, list[0].Last, t.Last)
		}
		list[i] = t
	}
	return list, nil
}

func newTrial(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, depth float64) (Trial, error) {
	key := fmt.Sprint(10000 + r.IntN(90000))
	t, err := Fill(tok, r, "a passkey", length, func(sentences []string) (Trial, error) {
		at := int(depth * float64(len(sentences)))
		sentences = slices.Insert(slices.Clone(sentences), at, strings.ReplaceAll(hidden, "%s", key))
		return Ask(ctx, tok, opening+"\n\n"+strings.Join(sentences, " "), question, answer, key)
	})
	t.Depth, t.Key = depth, key
	return t, err
}

// Fill makes the longest trial of at most length tokens that build makes of made-up sentences: it
// is called with more of them, then with fewer. what is named where length is too short for it.
func Fill(tok *tokenizer.Tokenizer, r *rand.Rand, what string, length int, build func(sentences []string) (Trial, error)) (Trial, error) {
	t, err := build(nil)
	if err != nil {
		return t, err
	}
	if t.Length > length {
		return t, usererr.New("%s in %d tokens: the question alone has %d, want more than that", what, length, t.Length)
	}
	var sentences []string
	// Tokens of a sentence hardly depend on its neighbours; what is over is taken back below.
	for room := length - t.Length; room > 0; {
		s := sentence(r)
		sentences = append(sentences, s)
		room -= len(tok.EncodeWith(" "+s, tokenizer.EncodeOptions{WithoutSpecialTokens: true}))
	}
	for {
		if t, err = build(sentences); err != nil || t.Length <= length {
			return t, err
		}
		sentences = sentences[:len(sentences)-1]
	}
}

// Ask is a trial of a text, a question at its end, the beginning of the answer, and the rest of it,
// which is what has to be found. Where the model has a chat template, text and question are a
// user's message.
func Ask(ctx context.Context, tok *tokenizer.Tokenizer, text, question, begin, answer string) (t Trial, err error) {
	ask := "\n\n" + question
	before := ""
	whole := text + ask + "\n" + begin
	if tok.ChatTemplate() != "" {
		prompt, err := tok.ApplyChatTemplate(ctx, []tokenizer.Message{{Role: "user", Content: text + ask}}, true)
		if err != nil {
			return t, err
		}
		var found bool
		if before, _, found = strings.Cut(prompt, text); !found {
			return t, usererr.New("the model's chat template changes the message: this check cannot tell where the text ends")
		}
		whole = prompt + begin
	}
	encode := func(s string) []tokenizer.Token {
		return tok.EncodeWith(s, tokenizer.EncodeOptions{WithoutSpecialTokens: tok.ChatTemplate() != ""})
	}
	all, asked, read := encode(whole+answer), encode(whole), encode(before+text)
	if !startsWith(all, asked) || !startsWith(asked, read) {
		return t, usererr.New("with this tokenizer the answer %q or the question shares a token with what is before it", answer)
	}
	t.Text, t.Tail, t.Last, t.Length = read, all[len(read):], len(all)-len(asked), len(all)
	return t, nil
}

func startsWith(ids, prefix []tokenizer.Token) bool {
	return len(ids) > len(prefix) && slices.Equal(ids[:len(prefix)], prefix)
}
