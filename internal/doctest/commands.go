package doctest

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Command is a command line that a document shows.
type Command struct {
	Line  string // without prompt and comment, blanks as one; bin/kvq is kvq
	Input string // the commands whose output it reads, before a |
	Place string // the document and line that has it first, or says what it prints: README.md:61
	// what the document prints below it, in a fenced block; "" elsewhere
	Output string
}

// Words splits the line as a shell does, as far as documents need it: blanks, quotes, and no more
// than the first command of a pipe.
func (c Command) Words() []string {
	var words []string
	for _, w := range word.FindAllString(c.Line, -1) {
		if w == "|" || w == "<" || w == "&&" {
			break
		}
		words = append(words, quotes.Replace(w))
	}
	return words
}

var (
	word      = regexp.MustCompile(`(?:"[^"]*"|'[^']*'|[^\s"'])+`)
	quotes    = strings.NewReplacer(`"`, "", "'", "")
	prompt    = regexp.MustCompile(`^(?:\$ )?((?:bin/)?kvq|\./scripts/[\w-]+|go)(?: |$)`)
	remark    = regexp.MustCompile(`\s+#.*$`)
	piped     = regexp.MustCompile(`^(?:\$ )?([^|]+\|) *((?:bin/)?kvq .*)$`)
	codeSpan  = regexp.MustCompile("`[^`]+`")
	goCommand = regexp.MustCompile(`^go (?:test|run|build|get|install|vet|doc|mod) `)
)

// Commands returns the command lines of the documents below root that say what is: those of kvq, of
// ./scripts and of go, each once, in the order of the documents. What docs/bench and the log print
// was run on its day; CHANGELOG.md names what there is, and shows no calls.
func Commands(root string) ([]Command, error) {
	var names []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "docs/bench" || name == "shared" || d.Name() == "testdata" || strings.HasPrefix(name, "my-notebooks")):
			return filepath.SkipDir
		case path.Ext(name) == ".md" && name != "docs/bench-log.md" && name != "CHANGELOG.md":
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var list []Command
	at := map[string]int{}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		for _, c := range commandsOf(name, string(data)) {
			if i, known := at[c.Line]; known {
				if list[i].Output == "" && c.Output != "" {
					list[i] = c
				}
				continue
			}
			at[c.Line] = len(list)
			list = append(list, c)
		}
	}
	return list, nil
}

// commandsOf finds the command lines of one document: lines of fenced and of indented code that
// begin with a program of ours, and code spans.
func commandsOf(name, text string) (list []Command) {
	fenced, above := false, -1 // above is the command of this block whose output goes on
	prose := strings.Builder{}
	for n, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "```") {
			fenced, above = !fenced, -1
			prose.WriteString("\n")
			continue
		}
		code := fenced || strings.HasPrefix(line, "    ")
		if !code {
			prose.WriteString(line + "\n")
			continue
		}
		prose.WriteString("\n")
		if c, ok := clean(trimmed); ok {
			c.Place = fmt.Sprintf("%s:%d", name, n+1)
			list = append(list, c)
			above = -1
			if fenced && strings.HasPrefix(trimmed, "$ ") {
				above = len(list) - 1
			}
		} else if above >= 0 && !strings.HasPrefix(trimmed, "$ ") {
			list[above].Output += line + "\n"
		} else {
			above = -1
		}
	}
	// A code span may go on in the next line.
	for _, at := range codeSpan.FindAllStringIndex(prose.String(), -1) {
		span := strings.Trim(prose.String()[at[0]:at[1]], "`")
		if c, ok := clean(span); ok {
			c.Place = fmt.Sprintf("%s:%d", name, 1+strings.Count(prose.String()[:at[0]], "\n"))
			list = append(list, c)
		}
	}
	return list
}

// clean returns the command of a line, without its place, and whether it is one of ours.
func clean(line string) (c Command, ok bool) {
	line = strings.Join(strings.Fields(remark.ReplaceAllString(line, "")), " ")
	if m := piped.FindStringSubmatch(line); m != nil && !prompt.MatchString(line) {
		c.Input, line = strings.TrimSpace(strings.TrimSuffix(m[1], "|")), m[2]
	}
	m := prompt.FindStringSubmatch(line)
	if m == nil {
		return c, false
	}
	c.Line = strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "bin/")
	notGo := m[1] == "go" && !goCommand.MatchString(c.Line)
	return c, !notGo && c.Line != "kvq" && !strings.Contains(c.Line, "…")
}
