package nb

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// Measured is a table of a document of this repository, as it was committed: what was measured on
// another machine.
type Measured struct {
	Title string // of the section
	From  string // the document, from the root of the clone
	How   string // the paragraph above the table: command, date, machine, versions
	Names []string
	Rows  [][]string
}

// Committed reads the first table of a document under a heading, or of the whole document with "".
// path begins at the root of the clone: "docs/bench/h200/22-llama2.md".
func Committed(path, heading string) Measured {
	m, err := committed(path, heading)
	Check(err)
	return m
}

func committed(path, heading string) (m Measured, err error) {
	root, err := asset.Root()
	if err != nil {
		return m, err
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return m, err
	}
	m = firstTable(string(text), heading)
	m.From = path
	if m.Names == nil {
		return m, fmt.Errorf("nb.Committed: want a table in %s under the heading %q, found none", path, heading)
	}
	return m, nil
}

// firstTable finds the heading, and takes the paragraph and the table that follow.
func firstTable(text, heading string) (m Measured) {
	wanted := heading == ""
	var paragraph []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		name, isHeading := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		switch {
		case m.Names != nil && !strings.HasPrefix(line, "|"):
			return m
		case strings.HasPrefix(line, "#") && isHeading:
			wanted = heading == "" || name == heading
			m.Title, paragraph = name, nil
		case !wanted:
		case strings.HasPrefix(line, "|") && m.Names == nil:
			m.Names, m.How = columns(line), strings.TrimSpace(strings.Join(paragraph, " "))
		case strings.HasPrefix(line, "|"):
			if cells := columns(line); strings.Trim(strings.Join(cells, ""), "-: ") != "" {
				m.Rows = append(m.Rows, cells)
			}
		case line == "":
			if len(paragraph) > 0 {
				paragraph = append(paragraph, "")
			}
		default:
			if len(paragraph) > 0 && paragraph[len(paragraph)-1] == "" {
				paragraph = nil // the last paragraph counts
			}
			paragraph = append(paragraph, line)
		}
	}
	return m
}

func columns(line string) (cells []string) {
	for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
		cells = append(cells, strings.TrimSpace(cell))
	}
	return cells
}

// Where are the rows of which each named column has the value: a column, its value, and so on.
func (m Measured) Where(columnsAndValues ...string) Measured {
	kept := m
	kept.Rows = nil
	for _, row := range m.Rows {
		good := true
		for i := 0; i+1 < len(columnsAndValues); i += 2 {
			good = good && row[m.column(columnsAndValues[i])] == columnsAndValues[i+1]
		}
		if good {
			kept.Rows = append(kept.Rows, row)
		}
	}
	if kept.Rows == nil {
		Check(fmt.Errorf("nb.Measured: %s has no row with %q", m.From, columnsAndValues))
	}
	return kept
}

// Column is a column's numbers. Of a cell such as "1.10 / 1.14" or "4,096 tokens" the first counts.
func (m Measured) Column(name string) (numbers []float64) {
	at := m.column(name)
	for _, row := range m.Rows {
		text := strings.ReplaceAll(number.FindString(row[at]), ",", "")
		numbers = append(numbers, Must(strconv.ParseFloat(text, 64)))
	}
	return numbers
}

var number = regexp.MustCompile(`-?\d[\d,]*(\.\d+)?`)

func (m Measured) column(name string) int {
	for i, n := range m.Names {
		if n == name {
			return i
		}
	}
	Check(fmt.Errorf("nb.Measured: %s has no column %q, but %q", m.From, name, m.Names))
	return 0
}

// Series are two columns as a line to plot.
func (m Measured) Series(name, x, y string) Series {
	return Series{Name: name, X: m.Column(x), Y: m.Column(y), Points: true}
}

// Show shows the named columns, all without names, and below them where they were measured.
func (m Measured) Show(names ...string) {
	if len(names) == 0 {
		names = m.Names
	}
	var rows [][]string
	for _, row := range m.Rows {
		var cells []string
		for _, at := range m.columns(names) {
			cells = append(cells, row[at])
		}
		rows = append(rows, cells)
	}
	Table(names, rows...)
	fmt.Println(m.source())
}

// Number is the first number in the paragraph above the table that a regular expression's group
// finds.
func (m Measured) Number(pattern string) float64 {
	found := regexp.MustCompile(pattern).FindStringSubmatch(m.How)
	if len(found) != 2 {
		Check(fmt.Errorf("nb.Measured: %s says nothing like %q above its table", m.From, pattern))
	}
	return Must(strconv.ParseFloat(found[1], 64))
}

// columns are the places of named columns. A name that stands twice is the first such column and
// then the second.
func (m Measured) columns(names []string) (places []int) {
	for i, name := range names {
		at := m.column(name)
		for range count(names[:i], name) {
			if next := slices.Index(m.Names[at+1:], name); next >= 0 {
				at += 1 + next
			}
		}
		places = append(places, at)
	}
	return places
}

func count(names []string, name string) (n int) {
	for _, other := range names {
		if other == name {
			n++
		}
	}
	return n
}

// source is the line below a table: where it is from, and how it was measured.
func (m Measured) source() string {
	line := fmt.Sprintf("from %s, %s", m.From, m.Title)
	if m.How != "" {
		line += ": " + strings.ReplaceAll(m.How, "`", "")
	}
	return line
}
