package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is the one style of tables. It fits the terminal: what is too wide for it is wrapped, and
// where that is not enough, columns move into a further table that begins with the same first
// columns. Columns that are empty in all rows are left out.
type Table struct {
	w       io.Writer
	header  table.Row
	rows    []table.Row // nil: a line between rows
	keys    int
	lines   bool
	columns int // of the terminal
}

// NewTable returns an empty table that Render prints on w.
func NewTable(w io.Writer, header table.Row) *Table {
	columns, _ := TerminalSize(w)
	return &Table{w: w, header: header, keys: 1, columns: columns}
}

// Keys says how many first columns every part of a table that is too wide begins with: 1 unless
// told otherwise.
func (t *Table) Keys(n int) *Table {
	t.keys = n
	return t
}

// SeparateRows draws a line between any two rows.
func (t *Table) SeparateRows() *Table {
	t.lines = true
	return t
}

// AppendRow adds a row. What is missing at its end is empty.
func (t *Table) AppendRow(row table.Row) { t.rows = append(t.rows, row) }

// AppendSeparator adds a line between rows.
func (t *Table) AppendSeparator() { t.rows = append(t.rows, nil) }

// cell is the text of a row in a column.
func cell(row table.Row, column int) string {
	if column < len(row) {
		return fmt.Sprint(row[column])
	}
	return ""
}

// filled are the columns that are not empty in all rows.
func (t *Table) filled() []int {
	var list []int
	for c := range t.header {
		if len(t.rows) == 0 || slices.ContainsFunc(t.rows, func(row table.Row) bool { return cell(row, c) != "" }) {
			list = append(list, c)
		}
	}
	return list
}

// Markdown prints the table for a document, whatever its width.
func (t *Table) Markdown() {
	all := t.filled()
	fmt.Fprintln(t.w, t.writer(all, nil).RenderMarkdown())
}

// Render prints the table for people.
func (t *Table) Render() {
	for i, part := range t.parts() {
		if i > 0 {
			fmt.Fprintln(t.w)
		}
		fmt.Fprintln(t.w, t.writer(part, t.widths(part)).Render())
	}
}

// border is what a column takes beside its text, and the table beside its columns.
const border, edge = 3, 1

// parts shares the columns out among tables that fit: one table where all can be wrapped to that,
// else several, whose heads have two lines. One column always has a place, however narrow the
// terminal is.
func (t *Table) parts() [][]int {
	all := t.filled()
	fits := func(columns []int, width func(limits) int) bool {
		sum := edge
		for _, c := range columns {
			sum += width(t.limits(c)) + border
		}
		return sum <= t.columns
	}
	if fits(all, func(l limits) int { return l.least }) {
		return [][]int{all}
	}
	keys := min(t.keys, len(all))
	share := func(most int) [][]int { // out columns, at most so many a table beside the keys
		parts := [][]int{all[:keys:keys]}
		for _, c := range all[keys:] {
			last := parts[len(parts)-1]
			with := append(slices.Clip(last), c)
			if n := len(last) - keys; n > 0 && (n >= most || !fits(with, func(l limits) int { return max(l.least, l.head) })) {
				parts = append(parts, append(all[:keys:keys], c))
				continue
			}
			parts[len(parts)-1] = with
		}
		return parts
	}
	rest := len(all) - keys
	n := len(share(rest))
	if even := share((rest + n - 1) / n); len(even) == n {
		return even
	}
	return share(rest)
}

// wraps is the length from which a text with digits is wrapped, and the least that it is wrapped
// to: shorter ones are numbers, which are read in one piece.
const wraps, wrapped = 24, 18

// limits are widths of a column.
type limits struct {
	natural  int // nothing is wrapped
	headless int // the head alone is wrapped, to two lines
	least    int // the least that all can be wrapped to
	head     int // of the head in two lines
}

func (t *Table) limits(column int) limits {
	words := func(s string) (longest int) {
		for word := range strings.FieldsSeq(s) {
			longest = max(longest, min(text.StringWidth(word), wrapped))
		}
		return longest
	}
	head := cell(t.header, column)
	l := limits{least: words(head)}
	for l.head = max(l.least, 1); strings.Count(wrap(head, l.head), "\n") > 1; {
		l.head++
	}
	l.headless = l.head
	for _, row := range t.rows {
		for line := range strings.SplitSeq(cell(row, column), "\n") {
			width := text.StringWidth(line)
			l.headless = max(l.headless, width)
			if width <= wraps && strings.ContainsAny(line, "0123456789") {
				l.least = max(l.least, width)
			} else {
				l.least = max(l.least, words(line))
			}
		}
	}
	l.natural = max(text.StringWidth(head), l.headless)
	return l
}

// widths are those of columns that stand beside each other: as they are where that fits, else heads
// are wrapped first and then texts, of the widest column first.
func (t *Table) widths(columns []int) []int {
	widths, headless, least := make([]int, len(columns)), make([]int, len(columns)), make([]int, len(columns))
	over := edge + border*len(columns) - t.columns
	for i, c := range columns {
		l := t.limits(c)
		widths[i], headless[i], least[i] = l.natural, l.headless, l.least
		over += widths[i]
	}
	for _, floor := range [][]int{headless, least} {
		for ; over > 0; over-- {
			widest := -1
			for i := range widths {
				if widths[i] > floor[i] && (widest < 0 || widths[i] >= widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
	return widths
}

// writer draws columns, wrapped to widths (nil: not wrapped).
func (t *Table) writer(columns, widths []int) table.Writer {
	w := table.NewWriter()
	style := table.StyleLight
	style.Format.Header = text.FormatDefault
	style.Options.SeparateRows = t.lines
	w.SetStyle(style)
	line := func(row table.Row) table.Row {
		var out table.Row
		for i, c := range columns {
			s := cell(row, c)
			switch {
			case widths != nil && wrap(s, widths[i]) != s:
				out = append(out, wrap(s, widths[i]))
			case c < len(row):
				out = append(out, row[c]) // a number stays one, and stands on the right
			default:
				out = append(out, "")
			}
		}
		return out
	}
	w.AppendHeader(line(t.header))
	for _, row := range t.rows {
		if row == nil {
			w.AppendSeparator()
		} else {
			w.AppendRow(line(row))
		}
	}
	return w
}

// wrap breaks lines that are wider than width between words; words that are wider themselves after
// a slash, as paths have them, or anywhere.
func wrap(s string, width int) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if text.StringWidth(line) <= width {
			out = append(out, line)
			continue
		}
		begun := ""
		for word := range strings.FieldsSeq(line) {
			switch with := begun + " " + word; {
			case begun == "":
				begun = word
			case text.StringWidth(with) <= width:
				begun = with
			default:
				out, begun = append(out, begun), word
			}
			for text.StringWidth(begun) > width {
				head := fitting(begun, width)
				out, begun = append(out, head), begun[len(head):]
			}
		}
		if begun != "" {
			out = append(out, begun)
		}
	}
	return strings.Join(out, "\n")
}

// fitting is the longest beginning of a word that fits: at least a character, and up to a slash
// where there is one.
func fitting(word string, width int) string {
	end, slash := 0, 0
	for i := range word {
		r, size := utf8.DecodeRuneInString(word[i:])
		next := i + size
		if end > 0 && text.StringWidth(word[:next]) > width {
			break
		}
		if end = next; r == '/' {
			slash = end
		}
	}
	if slash > 1 {
		return word[:slash]
	}
	return word[:end]
}
