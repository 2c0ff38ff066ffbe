package tokenizer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The finder gives what comparing with every pattern gives: the longest that a text begins with,
// and of equal ones that with the smallest id.
func TestFinder(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	word := func(most int) string {
		b := make([]byte, 1+random.IntN(most))
		for i := range b {
			b[i] = "ab<"[random.IntN(3)]
		}
		return string(b)
	}
	matched := 0
	for range 300 {
		var f finder
		var list []pattern
		for id := range 1 + random.IntN(30) {
			p := pattern{word(6), addedToken{id: Token(id)}}
			list = append(list, p)
			f.add(p.text, p.token)
		}
		f.sort()
		for range 50 {
			text := word(12)
			var want pattern
			for _, p := range slices.Backward(list) {
				if strings.HasPrefix(text, p.text) && len(p.text) >= len(want.text) {
					want = p
				}
			}
			got, found := f.match(text)
			if got != want || found != (want.text != "") {
				t.Fatalf("%q begins with %+v (%v), want %+v of %+v", text, got, found, want, list)
			}
			if found {
				matched++
			}
		}
	}
	if matched < 1000 {
		t.Errorf("%d matches tried, want some", matched)
	}
}

// Many added tokens with one first letter do not make encoding slow: comparing with each of them
// took 9 s.
func TestManyAddedTokens(t *testing.T) {
	list := make([]addedToken, 100_000)
	for i := range list {
		list[i] = addedToken{id: Token(i), content: fmt.Sprintf("aaaa%06d", i)}
	}
	a := newAddedTokens(list, nil)
	began := time.Now()
	text := strings.Repeat("a", 400_000) + "aaaa012345" + strings.Repeat("a", 100)
	got := a.split(text, nil, false)
	if len(got) != 3 || got[1].id != 12345 || got[0].text != text[:400_000] {
		t.Errorf("%d segments, want text, token 12345, text", len(got))
	}
	if spent := time.Since(began); spent > 5*time.Second {
		t.Errorf("took %s", spent)
	}
}
