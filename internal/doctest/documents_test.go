package doctest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// root is the clone.
const root = "../.."

// walk calls visit for every file of the clone that set-up did not put there, with its path from
// the root.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(file, root+string(filepath.Separator)))
		hidden := strings.HasPrefix(d.Name(), ".") && file != root
		if d.IsDir() && (hidden || d.Name() == "testdata" || name == "bin" || name == "shared" || strings.HasPrefix(name, "my-notebooks")) {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// read returns a file of the clone.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documents returns the text of every Markdown file. The log and the printed sections name what was
// there on their day: current leaves them out.
func documents(t *testing.T, current bool) map[string]string {
	t.Helper()
	texts := map[string]string{}
	walk(t, func(name string) {
		if path.Ext(name) != ".md" || current && (name == "docs/bench-log.md" || strings.HasPrefix(name, "docs/bench/")) {
			return
		}
		texts[name] = read(t, name)
	})
	if len(texts) < 10 {
		t.Fatalf("%d documents found, want the clone's", len(texts))
	}
	return texts
}

// exists tells whether a path, or a pattern of paths, is there.
func exists(name string) bool {
	found, err := filepath.Glob(filepath.Join(root, strings.ReplaceAll(name, "…", "*")))
	return err == nil && len(found) > 0
}

var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

func TestLinksExist(t *testing.T) {
	for name, text := range documents(t, false) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if target := path.Join(path.Dir(name), m[1]); !exists(target) {
				t.Errorf("%s links to %s, which is not there", name, target)
			}
		}
	}
}

var (
	span   = regexp.MustCompile("`[^`\n]+`")
	goPath = regexp.MustCompile(`^[\w./*…-]+$`)
)

// spans returns the code spans of a text outside fenced code, without their backquotes.
func spans(text string) (list []string) {
	for i, part := range strings.Split(text, "```") {
		if i%2 == 0 {
			for _, s := range span.FindAllString(part, -1) {
				list = append(list, strings.Trim(s, "`"))
			}
		}
	}
	return list
}

// A span that begins with a folder of the clone, or ends in .go or .md, is a path.
func TestPathsExist(t *testing.T) {
	var folders []string
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" && e.Name() != "shared" {
			folders = append(folders, e.Name())
		}
	}
	n := 0
	for name, text := range documents(t, true) {
		for _, s := range spans(text) {
			target := strings.TrimPrefix(strings.Fields(s + " ")[0], "./")
			first, _, below := strings.Cut(target, "/")
			ours := slices.Contains(folders, first) || path.Ext(target) == ".go" || path.Ext(target) == ".md"
			if !goPath.MatchString(target) || !below || !ours {
				continue
			}
			if n++; !exists(target) && !exists(path.Join(path.Dir(name), target)) {
				t.Errorf("%s names %s, which is not there", name, target)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d paths found, want many", n)
	}
}

var variable = regexp.MustCompile(`\b(?:KVQ|HF)_[A-Z_]+\b`)

// An environment variable of ours or of Hugging Face is read somewhere: by Go code that is no test,
// or by a script.
func TestVariablesExist(t *testing.T) {
	used := map[string]bool{}
	walk(t, func(name string) {
		if strings.HasPrefix(name, "scripts/") || strings.HasSuffix(name, ".go") {
			for _, v := range variable.FindAllString(read(t, name), -1) {
				used[v] = true
			}
		}
	})
	for name, text := range documents(t, true) {
		for _, v := range variable.FindAllString(text, -1) {
			if !used[v] {
				t.Errorf("%s names the variable %s, which nothing reads", name, v)
			}
		}
	}
}

var (
	asked = regexp.MustCompile(`(?:Getenv|LookupEnv)\("([A-Z][A-Z0-9_]+)"\)|"((?:KVQ|HF|HUGGING_FACE|HUGGINGFACE|TRANSFORMERS)_[A-Z_]+)"`)
	// what a user does not set: another program or a script does
	inner = regexp.MustCompile(`^(PATH|HOME|KVQ_(SETUP|PYTHON)|KVQ_SOAK_\w+|GONB_\w+|GOVULNDB)$`)
)

// docs/environment.md has every variable that Go code reads which is no test.
func TestVariablesAreDocumented(t *testing.T) {
	page := read(t, "docs/environment.md")
	n := 0
	walk(t, func(name string) {
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, m := range asked.FindAllStringSubmatch(read(t, name), -1) {
			v := m[1] + m[2]
			if inner.MatchString(v) {
				continue
			}
			if n++; !strings.Contains(page, "`"+v+"`") {
				t.Errorf("%s reads %s, which docs/environment.md does not have", name, v)
			}
		}
	})
	if n < 20 {
		t.Errorf("%d variables found, want many", n)
	}
}

var (
	command = regexp.MustCompile("(?m)(?:bin/|\\$ |`|^ {4})kvq ([a-z][^`\n|]*)")
	flag    = regexp.MustCompile(`--([a-z][a-z0-9-]*)`)
)

// Subcommands and flags of kvq are strings in the command's code.
func TestFlagsExist(t *testing.T) {
	var code strings.Builder
	walk(t, func(name string) {
		commands := strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "internal/")
		if commands && path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") {
			code.WriteString(read(t, name))
		}
	})
	n := 0
	for name, text := range documents(t, true) {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			word, _, _ := strings.Cut(strings.TrimSpace(m[1]), " ")
			if !regexp.MustCompile(`Use: +"` + regexp.QuoteMeta(word) + `[ "]`).MatchString(code.String()) {
				t.Errorf("%s names the command kvq %s, which is not there", name, word)
			}
			for _, f := range flag.FindAllStringSubmatch(m[1], -1) {
				if n++; !strings.Contains(code.String(), `"`+f[1]+`"`) && f[1] != "help" {
					t.Errorf("%s names the flag --%s of kvq %s, which is not there", name, f[1], word)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("%d flags found, want many", n)
	}
}

// Prose is wrapped at 100 columns. Tables, code, headings and what has no space to break at are
// not.
func TestProseIsWrapped(t *testing.T) {
	for name, text := range documents(t, true) {
		fenced := false
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			line = strings.TrimRight(line, "\n")
			begin := strings.TrimLeft(line, " ")
			prose := !fenced && !strings.HasPrefix(line, "    ") && !strings.ContainsAny(begin[:min(1, len(begin))], "|#<!")
			if prose && utf8.RuneCountInString(line) > 100 && strings.Contains(strings.TrimLeft(begin, "-* "), " ") {
				t.Errorf("%s has a line of %d columns, want 100 at most: %s", name, utf8.RuneCountInString(line), line)
			}
		}
	}
}

var document = regexp.MustCompile(`\bdocs/[\w/.-]+\.(?:md|jsonl|svg)\b`)

// Documents that comments and messages of the code refer to exist.
func TestCodeRefersToDocuments(t *testing.T) {
	walk(t, func(name string) {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "internal/doctest/") {
			return
		}
		for _, d := range document.FindAllString(read(t, name), -1) {
			if !exists(d) && d != "docs/gguf.md" { // of ggml
				t.Errorf("%s refers to %s, which is not there", name, d)
			}
		}
	})
}
