package nb

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func TestWrapped(t *testing.T) {
	for _, c := range []struct {
		text           string
		letters, lines int
		want           []string
	}{
		{"", 5, 2, nil},
		{"ab cd", 5, 2, []string{"ab cd"}},
		{"ab cd ef", 5, 2, []string{"ab cd", "ef"}},
		{"abc de", 5, 2, []string{"abc", "de"}},
		{"abcdefgh", 5, 2, []string{"abcde", "fgh"}},
		{"ä ö ü é", 3, 2, []string{"ä ö", "ü é"}},
		{"a b c d e", 3, 2, []string{"a b", "c d …"}},
	} {
		if got := wrapped(c.text, c.letters, c.lines); !slices.Equal(got, c.want) {
			t.Errorf("%q in lines of %d: %q, wanted %q", c.text, c.letters, got, c.want)
		}
	}
}

// The mark stands where the text parts, and nowhere in one that does not.
func TestRungsMarkWhereTextsPart(t *testing.T) {
	parted := Rung{Bits: 3, Text: " a <b>\nc", Same: " a"}
	if got := marked(parted); got != "a ▶ <b> c" {
		t.Errorf("marked %q", got)
	}
	if got := parted.html(); !strings.Contains(got, " a<mark>▶</mark><b> &lt;b&gt;<br>c</b>") {
		t.Errorf("html %q", got)
	}
	same := Rung{Bits: 8, Text: " all", Same: " all"}
	if got := marked(same) + same.html(); strings.Contains(got, PartMark) {
		t.Errorf("a text that does not part: %q", got)
	}
	if p := Ladder(parted, same); len(p) < 1000 || len(Frontier("t", []Dot{{"a", 3, 0.1}, {"", 4, 0.01}}, Series{Name: "s", X: []float64{2, 3}, Y: []float64{1, 0.1}})) < 1000 {
		t.Error("no picture")
	}
}

func TestSharedText(t *testing.T) {
	for _, c := range [][3]string{{" a man sat", " a mat lay", " a"}, {" one two", " one two", " one two"}, {" one", " two", ""}, {"", " x", ""}, {" é a", " è a", ""}} {
		if got := SharedText(c[0], c[1]); got != c[2] {
			t.Errorf("%q and %q share %q, wanted %q", c[0], c[1], got, c[2])
		}
	}
}

// A step of 4 bits is 15/7 of one of 3, and the divergence grows with its square.
func TestFallOf(t *testing.T) {
	if got := fallOf(3, 4); math.Abs(got-225.0/49) > 1e-12 {
		t.Errorf("from 3 to 4 bits %g", got)
	}
}
