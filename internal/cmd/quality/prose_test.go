package main

import (
	"strings"
	"testing"
)

func TestWrapProse(t *testing.T) {
	words := strings.TrimSpace(strings.Repeat("word ", 30)) // 149 columns
	line, rest := strings.TrimSpace(strings.Repeat("word ", 20)), strings.TrimSpace(strings.Repeat("word ", 10))
	item, itemRest := "- "+strings.TrimSpace(strings.Repeat("word ", 19)), "  "+strings.TrimSpace(strings.Repeat("word ", 11))
	for _, c := range []struct{ name, in, want string }{
		{"short", "a line\n\nanother\n", "a line\n\nanother\n"},
		{"long", words + "\n", line + "\n" + rest + "\n"},
		{"item", "- " + words + "\n", item + "\n" + itemRest + "\n"},
		{"table", "| " + words + " |\n", "| " + words + " |\n"},
		{"heading", "# " + words + "\n", "# " + words + "\n"},
		{"picture", "![" + words + "](x.svg)\n", "![" + words + "](x.svg)\n"},
	} {
		if got := string(wrapProse([]byte(c.in))); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}
