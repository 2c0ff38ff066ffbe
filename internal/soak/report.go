package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/filesys"
)

// Document is where the figures of full runs go, relative to the clone.
const Document = "docs/reliability.md"

// The marks between which Document's table lies. A row begins with the part's name in backquotes.
const (
	beginMark = "<!-- figures: written by ./scripts/soak -->"
	endMark   = "<!-- end of figures -->"
	tableHead = "| part | promise | held in `./scripts/test` by | tried | tries | failures | took | when, where |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
)

// report writes a finished part's row.
func (r *Runner) report(p Part, s state) error {
	path := filepath.Join(r.Root, filepath.FromSlash(Document))
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	figures := Figures{Tried: s.tried(), Tries: fmt.Sprint(s.tries()), Failures: s.failures(), Took: short(s.Spent),
		When: fmt.Sprintf("%s, %s, %s", time.Now().UTC().Format(time.DateOnly), r.Machine, strings.Join(s.Commits, " and "))}
	changed, err := SetRow(string(text), p, figures)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return filesys.Write(path, []byte(changed))
}

// Figures are the cells of a row that a run fills.
type Figures struct{ Tried, Tries, Failures, Took, When string }

// NotRun are the figures of a part that has not had a full run.
var NotRun = Figures{Tried: "no full run yet"}

// unescaped is a bar that would end a cell.
var unescaped = regexp.MustCompile(`(^|[^\\])\|`)

// Row is a part's line in the table.
func Row(p Part, f Figures) string {
	cells := []string{"`" + p.Name + "`", p.Promise, p.Test, f.Tried, f.Tries, f.Failures, f.Took, f.When}
	for i, c := range cells {
		cells[i] = unescaped.ReplaceAllString(strings.Join(strings.Fields(c), " "), "${1}\\|")
	}
	return "| " + strings.Join(cells, " | ") + " |"
}

// SetRow replaces a part's row in a document, or adds it at the table's end.
func SetRow(text string, p Part, f Figures) (string, error) {
	head, rest, found := strings.Cut(text, beginMark+"\n")
	table, tail, closed := strings.Cut(rest, endMark)
	if !found || !closed {
		return "", fmt.Errorf("want a table between the lines %q and %q", beginMark, endMark)
	}
	var rows []string
	set := false
	for line := range strings.Lines(strings.TrimPrefix(table, tableHead)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "| `"+p.Name+"` |") {
			line, set = Row(p, f), true
		}
		if line != "" {
			rows = append(rows, line)
		}
	}
	if !set {
		rows = append(rows, Row(p, f))
	}
	return head + beginMark + "\n" + tableHead + strings.Join(rows, "\n") + "\n" + endMark + tail, nil
}

// CheckDocument returns a line for every part whose row is not there, or says another promise or
// test than the part does, and for every row of no part.
func CheckDocument(text string, parts []Part) (wrong []string) {
	_, rest, _ := strings.Cut(text, beginMark+"\n")
	table, _, found := strings.Cut(rest, endMark)
	if !found || !strings.HasPrefix(table, tableHead) {
		return []string{fmt.Sprintf("no table between the lines %q and %q", beginMark, endMark)}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(strings.TrimPrefix(table, tableHead)) {
		_, rest, _ := strings.Cut(line, "| `")
		name, _, _ := strings.Cut(rest, "`")
		p, found := Find(parts, name)
		begin, _ := strings.CutSuffix(Row(p, Figures{}), "|  |  |  |  |  |")
		switch {
		case !found:
			wrong = append(wrong, "a row of no part: "+strings.TrimSpace(line))
		case seen[name]:
			wrong = append(wrong, "two rows of "+name)
		case !strings.HasPrefix(line, begin):
			wrong = append(wrong, fmt.Sprintf("the row of %s does not begin with %q", name, begin))
		}
		seen[name] = true
	}
	for _, p := range parts {
		if !seen[p.Name] {
			wrong = append(wrong, "no row of "+p.Name)
		}
	}
	return wrong
}

// UpdateDocument makes the rows of all parts anew, in their order, with the figures that are there.
func UpdateDocument(text string, parts []Part) (string, error) {
	_, rest, _ := strings.Cut(text, beginMark+"\n")
	table, _, _ := strings.Cut(rest, endMark)
	figures := map[string]Figures{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		// Trim takes the empty cells of a part that was not run.
		for len(cells) < 8 {
			cells = append(cells, "")
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		figures[strings.Trim(cells[0], "`")] = Figures{cells[3], cells[4], cells[5], cells[6], cells[7]}
	}
	text = strings.Replace(text, table, "", 1)
	for _, p := range parts {
		f, found := figures[p.Name]
		if !found {
			f = NotRun
		}
		var err error
		if text, err = SetRow(text, p, f); err != nil {
			return "", err
		}
	}
	return text, nil
}

// tried lists the stages with their tries, then other counts and notes, then what was not tried.
func (s *state) tried() string {
	var list []string
	for _, one := range s.Stages {
		if one.Tries > 0 {
			list = append(list, fmt.Sprintf("%s %d", one.Name, one.Tries))
		}
	}
	text := strings.Join(list, ", ")
	for _, one := range s.Counts {
		text += fmt.Sprintf(". %d %s", one.Tries, one.Name)
	}
	for _, n := range s.Notes {
		text += ". " + n
	}
	for _, n := range s.Untried {
		text += ". Not tried: " + n
	}
	return strings.TrimPrefix(text, ". ")
}

// failures is the number of failures, with the first few lines.
func (s *state) failures() string {
	const shown = 3
	if len(s.Failures) == 0 {
		return "0"
	}
	text := fmt.Sprintf("%d: %s", len(s.Failures), strings.Join(s.Failures[:min(shown, len(s.Failures))], "; "))
	if len(s.Failures) > shown {
		text += "; …"
	}
	return text
}
