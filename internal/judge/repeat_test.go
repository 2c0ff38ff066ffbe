package judge

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// By hand: "1 2 3 4 5" has two runs of four tokens, none seen before. In "1 2 3 1 2 3 1 2 3" the
// six runs of four are 1231, 2312, 3123, 1231, 2312, 3123: three of them again; the part 123123
// begins at 0 and again at 3.
func TestRepeatedByHand(t *testing.T) {
	for _, c := range []struct {
		text    []int32
		share   float64
		longest int
	}{
		{nil, 0, 0},
		{[]int32{7, 7, 7}, 0, 2}, // too short for a run of four
		{[]int32{1, 2, 3, 4, 5}, 0, 0},
		{[]int32{1, 2, 3, 1, 2, 3, 1, 2, 3}, 0.5, 6},
		{[]int32{7, 7, 7, 7, 7, 7}, 2.0 / 3, 5},
		{[]int32{1, 2, 3, 4, 9, 1, 2, 3, 4}, 1.0 / 6, 4},
		{[]int32{1, 256, 1, 256 << 8, 1, 256, 1, 256}, 0, 3}, // ids of several bytes are told apart
	} {
		if got := Repeated(c.text, 4); math.Abs(got-c.share) > 1e-15 {
			t.Errorf("%v: %g of its 4-grams seen before, want %g", c.text, got, c.share)
		}
		if got := LongestRepeat(c.text); got != c.longest {
			t.Errorf("%v: longest repeat %d, want %d", c.text, got, c.longest)
		}
	}
}

// Against the definition, tried for every pair of places, in random texts of few words.
func TestLongestRepeatEqualsItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		text := make([]int32, r.IntN(30))
		for i := range text {
			text[i] = r.Int32N(3)
		}
		want := 0
		for i := range text {
			for j := range i {
				n := 0
				for i+n < len(text) && text[i+n] == text[j+n] {
					n++
				}
				want = max(want, n)
			}
		}
		if got := LongestRepeat(text); got != want {
			t.Fatalf("%v: %d, want %d", text, got, want)
		}
	}
}

func TestPartingByHand(t *testing.T) {
	a := []int32{5, 6, 7, 8}
	for _, c := range []struct {
		b    []int32
		want int
	}{{[]int32{5, 6, 7, 8}, 4}, {[]int32{5, 6, 1, 8}, 2}, {[]int32{1, 6, 7, 8}, 0}, {[]int32{5, 6, 7}, 3}, {[]int32{5, 6, 7, 9}, 3}, {nil, 0}} {
		if got, back := Parting(a, c.b), Parting(c.b, a); got != c.want || back != c.want {
			t.Errorf("%v and %v part at %d (%d the other way), want %d", a, c.b, got, back, c.want)
		}
	}
	if !slices.Equal(a, []int32{5, 6, 7, 8}) {
		t.Error("the text was changed")
	}
}
