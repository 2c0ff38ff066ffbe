package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWideLines(t *testing.T) {
	word := func(n int) string { return strings.Repeat("x", n) }
	source := strings.Join([]string{
		"// " + word(97), // 1: exactly 100 columns
		"// " + word(98), // 2: wide
		"package p",      // 3
		"",               // 4
		"// See https://go.dev/" + word(100),
		"//\t" + word(100),                // 6: a table
		"//   " + word(100),               // 7: a table
		"//go:generate " + word(100),      // 8
		"var x = 1 // " + word(100),       // 9: beside code
		"",                                // 10
		"func f() {",                      // 11
		"\t// " + word(93),                // 12: a tab counts 4: 100
		"\t// " + word(94),                // 13: wide
		"\t// " + strings.Repeat("ü", 93), // 14: columns, not bytes
		"\t/* first",                      // 15
		"\t   " + word(100) + " */",       // 16: wide
		"\t// Output:",                    // 17
		"\t// " + word(120),               // 18: printed by an example
		"}",
		"",
	}, "\n")
	got, err := wideLines("a.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a.go:2: 101 columns", "a.go:13: 101 columns", "a.go:16: 110 columns"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
