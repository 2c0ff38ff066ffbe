package doctest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"regexp"
	"strings"
	"testing"
)

// declared returns what a Go file declares: functions, methods, types, fields, constants and
// variables.
func declared(t *testing.T, name string) (list []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), root+"/"+name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			list = append(list, f.Name.Name)
			continue
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				list = append(list, n.Name.Name)
			case *ast.ValueSpec:
				for _, name := range n.Names {
					list = append(list, name.Name)
				}
			case *ast.Field:
				for _, name := range n.Names {
					list = append(list, name.Name)
				}
			}
			return true
		})
	}
	return list
}

var (
	qualified = regexp.MustCompile(`\b([a-z]\w*)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	test      = regexp.MustCompile(`\b(?:Test|Benchmark|Example)[A-Z]\w*(…?)`)
)

// Names of our packages in the documents' code, such as kvq.Config or llama.LoadOptions, and names
// of tests exist.
func TestNamesExist(t *testing.T) {
	packages := map[string]map[string]bool{} // what a package declares
	var tests []string
	walk(t, func(name string) {
		if path.Ext(name) != ".go" || strings.HasPrefix(name, "tools/") {
			return
		}
		if strings.HasSuffix(name, "_test.go") {
			tests = append(tests, declared(t, name)...)
			return
		}
		p := path.Base(path.Dir(name))
		if packages[p] == nil {
			packages[p] = map[string]bool{}
		}
		for _, d := range declared(t, name) {
			packages[p][d] = true
		}
	})
	isTest := func(name string, prefix bool) bool {
		for _, t := range tests {
			if t == name || prefix && strings.HasPrefix(t, name) {
				return true
			}
		}
		return false
	}
	n := 0
	for name, text := range documents(t, true) {
		code := spans(text)
		for i, part := range strings.Split(text, "```") {
			if i%2 == 1 {
				code = append(code, part)
			}
		}
		for _, c := range code {
			for _, m := range qualified.FindAllStringSubmatch(c, -1) {
				names, ours := packages[m[1]]
				if !ours {
					continue
				}
				if n++; !names[m[2]] || m[3] != "" && !names[m[3]] {
					t.Errorf("%s names %s, which is not there", name, m[0])
				}
			}
			for _, m := range test.FindAllStringSubmatch(c, -1) {
				if n++; !isTest(strings.TrimSuffix(m[0], "…"), m[1] != "") {
					t.Errorf("%s names the test %s, which is not there", name, m[0])
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("%d names found, want many", n)
	}
}

var place = regexp.MustCompile("`([\\w.]+)`(?: in|,| \\() ?`([\\w/.-]+\\.go)`")

// "`name` in `file.go`" and "`name` (`file.go`)" say where a name is declared or used: it is there.
func TestNamesAreWhereDocumentsSay(t *testing.T) {
	n := 0
	for name, text := range documents(t, true) {
		for _, m := range place.FindAllStringSubmatch(strings.ReplaceAll(text, "\n", " "), -1) {
			file, last := m[2], m[1][strings.LastIndex(m[1], ".")+1:]
			if !strings.Contains(file, "/") || strings.Contains(m[1], "/") || !exists(file) {
				continue
			}
			if n++; !regexp.MustCompile(`\b` + last + `\b`).MatchString(read(t, file)) {
				t.Errorf("%s says that %s is in %s, where it is not", name, m[1], file)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d places found, want many", n)
	}
}
