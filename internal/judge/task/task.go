// Package task makes questions with one right answer each, by a script: keys among keys of similar
// names, a list to copy, small sums, and an instruction at the end of a long text. What the model
// has to know lies in front of the newest tokens, where a quantized cache holds it in codes.
//
// internal/passkey asks them: an answer is right where each of its tokens is the most likely one.
package task

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Kind is what is asked for.
type Kind string

const (
	Keys        Kind = "keys"        // one of several named keys
	Instruction Kind = "instruction" // at the end of a long text that has nothing to do with it
	Copy        Kind = "copy"        // a list of words
	Sums        Kind = "sums"        // of two small numbers, after worked examples
)

// Kinds are all of them, and what each asks.
var Kinds = []struct {
	Kind
	About string
}{
	{Keys, fmt.Sprintf("%d keys of three digits are hidden in made-up sentences, among them keys of the same colour or the same thing; one is asked for", keyCount)},
	{Instruction, "made-up sentences, then an instruction that has nothing to do with them: to count from one number to another, or to write some words; whether the model stops then does not count"},
	{Copy, fmt.Sprintf("a list of %d words, then made-up sentences; the list is to be written again", copyWords)},
	{Sums, "worked sums, made-up sentences, then a sum of two numbers"},
}

// maker makes one trial of at most length tokens. depth is where in the text the answer stands, if
// it stands in one place.
type maker func(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, depth float64) (passkey.Trial, error)

var makers = map[Kind]maker{Keys: namedKeys, Instruction: instruction, Copy: copyList, Sums: sums}

// Trials makes texts of at most length tokens, each with a question of its own. The same seed gives
// the same texts.
func Trials(ctx context.Context, tok *tokenizer.Tokenizer, kind Kind, length, count int, seed uint64) ([]passkey.Trial, error) {
	build, known := makers[kind]
	if !known {
		return nil, usererr.New("no task %q", kind)
	}
	var list []passkey.Trial
	for i := range count {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		t, err := build(ctx, tok, r, length, passkey.Depths[i%len(passkey.Depths)])
		if err != nil {
			return nil, fmt.Errorf("task %s: %w", kind, err)
		}
		list = append(list, t)
	}
	return list, nil
}
