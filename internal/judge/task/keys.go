package task

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/passkey"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// keyCount is how many keys a text hides.
const keyCount = 4

var (
	colours = []string{"red", "blue", "green", "white", "black", "yellow", "grey", "brown"}
	things  = []string{"door", "box", "gate", "house", "room", "car", "boat", "case"}
)

// hiddenKey is a key with a name.
type hiddenKey struct{ colour, thing, digits string }

func (k hiddenKey) sentence() string {
	return fmt.Sprintf("The key of the %s %s is %s. Remember it.", k.colour, k.thing, k.digits)
}

// hiddenKeys are keys of different names and digits. The first is asked for; the next has its
// colour and another thing, the one after that its thing and another colour.
func hiddenKeys(r *rand.Rand) []hiddenKey {
	c, t, d := r.Perm(len(colours)), r.Perm(len(things)), r.Perm(900)
	names := [][2]int{{0, 0}, {0, 1}, {1, 0}}
	for i := len(names); i < keyCount; i++ {
		names = append(names, [2]int{i, i})
	}
	var list []hiddenKey
	for i, n := range names {
		list = append(list, hiddenKey{colours[c[n[0]]], things[t[n[1]]], fmt.Sprint(100 + d[i])})
	}
	return list
}

// namedKeys hides several keys and asks for one, which is at depth; the others are anywhere.
func namedKeys(ctx context.Context, tok *tokenizer.Tokenizer, r *rand.Rand, length int, depth float64) (passkey.Trial, error) {
	keys := hiddenKeys(r)
	depths := []float64{depth}
	for range keys[1:] {
		depths = append(depths, 0.9*r.Float64())
	}
	asked := keys[0]
	t, err := passkey.Fill(tok, r, "a question", length, func(sentences []string) (passkey.Trial, error) {
		text := hide(sentences, keys, depths)
		return passkey.Ask(ctx, tok, "Some keys are hidden in this text. Remember them.\n\n"+text,
			fmt.Sprintf("What is the key of the %s %s?", asked.colour, asked.thing), fmt.Sprintf("The key of the %s %s is ", asked.colour, asked.thing), asked.digits+".")
	})
	t.Depth, t.Key = depth, asked.digits
	return t, err
}

// hide puts the keys between sentences, each at its depth.
func hide(sentences []string, keys []hiddenKey, depths []float64) string {
	at := func(i int) int { return int(depths[i] * float64(len(sentences))) }
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return at(b) - at(a) })
	sentences = slices.Clone(sentences)
	for _, i := range order { // from the last: what is inserted moves no place in front of it
		sentences = slices.Insert(sentences, at(i), keys[i].sentence())
	}
	return strings.Join(sentences, " ")
}
