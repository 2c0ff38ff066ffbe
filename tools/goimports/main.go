// Command goimports adds and removes a file's imports as golang.org/x/tools/cmd/goimports does, and
// keeps what a slip in a name would make it leave out.
//
//	goimports -w FILE
//
// GoNB calls it for every cell. The usual one adds a package of the standard library only where the
// package has the name that is used: of fmt.Printl the compiler then says "undefined: fmt". With
// the import it says "undefined: fmt.Printl".
package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/ast/astutil"
	"golang.org/x/tools/imports"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-w" {
		fmt.Fprintf(os.Stderr, "goimports: wanted -w and a file, came %q\n", os.Args[1:])
		os.Exit(2)
	}
	if err := run(os.Args[2]); err != nil {
		scanner.PrintError(os.Stderr, err)
		os.Exit(2)
	}
}

func run(name string) error {
	source, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	fixed, err := imports.Process(name, source, nil)
	if err != nil {
		return err
	}
	fixed, err = named(name, fixed, standardLibrary)
	if err != nil || bytes.Equal(fixed, source) {
		return err
	}
	return os.WriteFile(name, fixed, 0o644)
}

// named adds an import for each package name that a file uses without having it, if the standard
// library has such a package.
func named(name string, source []byte, library func() []string) ([]byte, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	lacking := unresolved(file)
	if len(lacking) == 0 {
		return source, nil
	}
	found := map[string]string{}
	for _, p := range library() {
		if base := path.Base(p); lacking[base] && better(p, found[base]) {
			found[base] = p
		}
	}
	for _, p := range found {
		astutil.AddImport(files, file, p)
	}
	var out bytes.Buffer
	if err := format.Node(&out, files, file); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// unresolved are the names before a dot that are neither declared nor imported in a file.
func unresolved(file *ast.File) map[string]bool {
	open := map[*ast.Ident]bool{}
	for _, id := range file.Unresolved {
		open[id] = true
	}
	lacking := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, is := n.(*ast.SelectorExpr); is {
			if id, is := s.X.(*ast.Ident); is && open[id] {
				lacking[id.Name] = true
			}
		}
		return true
	})
	for _, spec := range file.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		delete(lacking, path.Base(p))
		if base := path.Base(path.Dir(p)); strings.HasPrefix(path.Base(p), "v") {
			delete(lacking, base) // a major version at the end of the path
		}
		if spec.Name != nil {
			delete(lacking, spec.Name.Name)
		}
	}
	return lacking
}

// better says which of two packages of one name is meant: the shorter path, and of equal ones the
// later, which is math/rand of crypto's and math's, and text/template of html's and text's.
func better(p, than string) bool {
	a, b := strings.Count(p, "/"), strings.Count(than, "/")
	return than == "" || a < b || a == b && p > than
}

// standardLibrary are the paths of its packages that programs may import.
func standardLibrary() []string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil // the compiler says what is undefined
	}
	top := filepath.Join(strings.TrimSpace(string(out)), "src")
	var paths []string
	_ = filepath.WalkDir(top, func(dir string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() || dir == top {
			return nil
		}
		switch d.Name() {
		case "internal", "vendor", "testdata", "cmd", "builtin":
			return filepath.SkipDir
		}
		rel, _ := filepath.Rel(top, dir)
		if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) > 0 {
			paths = append(paths, filepath.ToSlash(rel))
		}
		return nil
	})
	return paths
}
