package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/kvq"
)

// The pictures of the documents are drawn from docs/quality.jsonl. The one of all caches says the
// names of the tutorial's and the presets alone, and both have a line for each number of bits.
func TestPicturesAreOfTheMeasuredRows(t *testing.T) {
	s, err := openStore("../../../docs/quality.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	g, _ := s.newestRun()
	written := regexp.MustCompile(`(?s)<text[^>]*>([^<]*)</text>`)
	for file, shown := range map[string]func(string) bool{"quality.svg": nil, "presets.svg": few} {
		want, err := g.picture(setUnseen, shown)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile("../../../docs/" + file)
		if err != nil || string(got) != string(want) {
			t.Errorf("docs/%s is not what ./scripts/quality --write draws: %v", file, err)
		}
		var words []string
		for _, m := range written.FindAllStringSubmatch(string(want), -1) {
			words = append(words, strings.TrimSpace(m[1]))
		}
		for _, word := range append(kvq.Presets(), tutorialName, "2", "3", "4", "5", "6", "8") {
			if n := count(words, word); n != 1 {
				t.Errorf("%s says %q %d times, want once", file, word, n)
			}
		}
		for _, s := range makeSteps() {
			if shown := shown != nil && shown(s.name); !shown && !named(s.name, false) && slices.Contains(words, s.name) {
				t.Errorf("%s names %s", file, s.name)
			}
		}
	}
}

func count(words []string, word string) (n int) {
	for _, w := range words {
		if w == word {
			n++
		}
	}
	return n
}

// A name goes where nothing lies: above its dot on the right if it can.
func TestNamesLieApart(t *testing.T) {
	at := func(x, y float64) place { p := place{}; p.at.X, p.at.Y = x, y; return p }
	for _, c := range []struct {
		what         string
		others       []place
		right, above bool
	}{
		{"alone", nil, true, true},
		{"a dot above on the right", []place{at(3.3, 0.0115)}, true, false},
		{"dots on the right", []place{at(3.3, 0.0115), at(3.3, 0.0085)}, false, true},
		{"dots everywhere but below on the left", []place{at(3.3, 0.0115), at(3.3, 0.0085), at(2.7, 0.0115)}, false, false},
	} {
		own := at(3, 0.01)
		taken := append([]place{own}, c.others...)
		l, err := nameBeside(own.at, "name", 1, &taken, 1e4)
		if err != nil {
			t.Fatal(err)
		}
		if right, above := l.Offset.X > 0, l.Offset.Y > 0; right != c.right || above != c.above {
			t.Errorf("%s: right %t, above %t", c.what, right, above)
		}
		if len(taken) != len(c.others)+2 {
			t.Errorf("%s: the name takes no place", c.what)
		}
	}
	// Not over the line that all are to be below.
	own := at(3, 0.0086)
	taken := []place{own}
	if l, err := nameBeside(own.at, "name", 0.01, &taken, 1e4); err != nil || l.Offset.Y > 0 {
		t.Errorf("over the line: %v, %v", l.Offset, err)
	}
}
