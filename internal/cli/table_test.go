package cli

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// What fits stands as it is; a head is wrapped before columns move into a second table, which
// begins with the same column.
func TestTable(t *testing.T) {
	for _, c := range []struct {
		columns int
		want    string
	}{
		{40, `
┌───────┬────────────┬────────┐
│ cache │ times fast │  bytes │
├───────┼────────────┼────────┤
│ small │ 1.2        │ 123456 │
├───────┼────────────┼────────┤
│ all   │ 3          │      7 │
└───────┴────────────┴────────┘
`},
		{28, `
┌───────┬───────┬────────┐
│ cache │ times │  bytes │
│       │ fast  │        │
├───────┼───────┼────────┤
│ small │ 1.2   │ 123456 │
├───────┼───────┼────────┤
│ all   │ 3     │      7 │
└───────┴───────┴────────┘
`},
		{20, `
┌───────┬───────┐
│ cache │ times │
│       │ fast  │
├───────┼───────┤
│ small │ 1.2   │
├───────┼───────┤
│ all   │ 3     │
└───────┴───────┘

┌───────┬────────┐
│ cache │  bytes │
├───────┼────────┤
│ small │ 123456 │
├───────┼────────┤
│ all   │      7 │
└───────┴────────┘
`},
	} {
		t.Setenv("COLUMNS", fmt.Sprint(c.columns))
		var b strings.Builder
		table1 := NewTable(&b, table.Row{"cache", "times fast", "bytes", "never"})
		table1.AppendRow(table.Row{"small", "1.2", 123456, ""})
		table1.AppendSeparator()
		table1.AppendRow(table.Row{"all", "3", 7})
		table1.Render()
		if got := "\n" + b.String(); got != c.want {
			t.Errorf("%d columns:%swant:%s", c.columns, got, c.want)
		}
	}
}

// Whatever the cells are, no line is wider than the terminal where one is wide enough for the first
// columns and a further one, and no word of a short cell is lost.
func TestTableFits(t *testing.T) {
	words := []string{"a", "of", "1,234", "KL", "median", "98.5 %", "世界", "least-squares", "0.00954 ± 0.0003", "a sentence of some length that is wrapped where it has to be"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		columns, keys, wide := 2+r.IntN(12), 1+r.IntN(2), 64+r.IntN(80)
		t.Setenv("COLUMNS", fmt.Sprint(wide))
		row := func() (out table.Row) {
			for range columns {
				out = append(out, words[r.IntN(len(words))])
			}
			return out
		}
		var b strings.Builder
		tab := NewTable(&b, row()).Keys(keys)
		rows := []table.Row{row(), row()}
		for _, one := range rows {
			tab.AppendRow(one)
		}
		tab.Render()
		for line := range strings.SplitSeq(b.String(), "\n") {
			if n := text.StringWidth(line); n > wide {
				t.Fatalf("%d columns, want at most %d: %q in\n%s", n, wide, line, b.String())
			}
		}
		for _, one := range append(rows, tab.header) {
			for _, c := range one {
				if s := c.(string); len(s) < 20 && !strings.Contains(s, " ") && !strings.Contains(b.String(), s) {
					t.Fatalf("%q is lost in\n%s", s, b.String())
				}
			}
		}
	}
}

// A document has all columns in one table, numbers on the right.
func TestTableMarkdown(t *testing.T) {
	t.Setenv("COLUMNS", "10")
	var b strings.Builder
	tab := NewTable(&b, table.Row{"cache", "times faster: min / median", "bytes", "never"})
	tab.AppendRow(table.Row{"small", "1.2 / 1.1", 5, ""})
	tab.Markdown()
	if want := "| cache | times faster: min / median | bytes |\n| --- | --- | ---:|\n| small | 1.2 / 1.1 | 5 |\n"; b.String() != want {
		t.Errorf("%s, want\n%s", b.String(), want)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		s     string
		width int
		want  string
	}{
		{"as it is", 8, "as it is"}, {"", 3, ""}, {"two words", 8, "two\nwords"}, {"two\nlines of it", 8, "two\nlines of\nit"},
		{"/tmp/a folder/name.txt", 9, "/tmp/a\nfolder/\nname.txt"}, {"unbreakable", 4, "unbr\neaka\nble"}, {"世界世界", 5, "世界\n世界"}, {"世", 1, "世"}, {"\xff\xff\xff", 2, "\xff\xff\n\xff"},
		{"a long/word", 8, "a\nlong/\nword"},
	} {
		if got := wrap(c.s, c.width); got != c.want {
			t.Errorf("%q in %d columns is %q, want %q", c.s, c.width, got, c.want)
		}
	}
}
