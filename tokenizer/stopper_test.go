package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestStopper(t *testing.T) {
	for _, c := range []struct {
		stops  []string
		pieces []string
		want   []string // what each piece gives
		rest   string
	}{
		{nil, []string{"a", "b"}, []string{"a", "b"}, ""},
		{[]string{"END"}, []string{"so E", "N", "D more", "x"}, []string{"so ", "", "", ""}, ""},
		{[]string{"END"}, []string{"so EN", "E", "X"}, []string{"so ", "EN", "EX"}, ""},
		{[]string{"END"}, []string{"so EN"}, []string{"so "}, "EN"},
		{[]string{"aab"}, []string{"aa", "ab!"}, []string{"", "a"}, ""},
		{[]string{"\n\n", "###"}, []string{"a\n", "#", "##"}, []string{"a", "\n", ""}, ""},
		{[]string{"abcd", "bc"}, []string{"xa", "bc"}, []string{"x", "a"}, ""}, // bc is complete first
		{[]string{"bc", "abc"}, []string{"xabc"}, []string{"x"}, ""},           // both at once: abc begins first
		{[]string{"é"}, []string{"caf", "é au"}, []string{"caf", ""}, ""},
	} {
		s := NewStopper(c.stops...)
		for i, piece := range c.pieces {
			if got, _ := s.Push(piece); got != c.want[i] {
				t.Errorf("stops %q, pieces %q: piece %d gives %q, want %q", c.stops, c.pieces, i, got, c.want[i])
			}
		}
		if got := s.Flush(); got != c.rest {
			t.Errorf("stops %q, pieces %q: %q is left, want %q", c.stops, c.pieces, got, c.rest)
		}
	}
}

// However a text is cut into pieces, what comes out ends where its first stop string begins.
func TestStopperDoesNotDependOnPieces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	letters := func(n int) string {
		var s strings.Builder
		for range n {
			s.WriteByte("ab"[random.IntN(2)])
		}
		return s.String()
	}
	for range 5000 {
		text, stops := letters(30), []string{letters(1 + random.IntN(5)), letters(2 + random.IntN(5))}
		want := text
	search:
		for end := range len(text) + 1 { // the stop string that is complete first, then the longest
			begin := -1
			for _, stop := range stops {
				if at := end - len(stop); strings.HasSuffix(text[:end], stop) && (begin < 0 || at < begin) {
					begin = at
				}
			}
			if begin >= 0 {
				want = text[:begin]
				break search
			}
		}
		s, got, rest := NewStopper(stops...), "", text
		for rest != "" {
			n := 1 + random.IntN(len(rest))
			piece, ended := s.Push(rest[:n])
			got, rest = got+piece, rest[n:]
			if ended != s.Stopped() {
				t.Fatal("Push and Stopped differ")
			}
		}
		if got += s.Flush(); got != want {
			t.Fatalf("%q with stops %q gives %q, want %q", text, stops, got, want)
		}
	}
}
