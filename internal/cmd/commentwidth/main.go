// Command commentwidth finds lines of Go comments that are wider than 100 columns.
//
//	go run ./internal/cmd/commentwidth [FOLDER]
//
// It prints one line for each, "FILE:LINE: N columns", and exits with status 1 if there is any. A
// tab counts 4 columns. Only lines that hold nothing but comment are looked at. Allowed are a line
// with a URL, a preformatted line (tables and drawings), a directive such as //go:build, and what
// an example prints.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

const (
	columns = 100
	tab     = 4
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	list, err := find(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "commentwidth:", err)
		os.Exit(2)
	}
	for _, line := range list {
		fmt.Println(line)
	}
	if len(list) > 0 {
		os.Exit(1)
	}
}

// find reports all wide lines of the Go files below root. Folders that begin with a dot, and
// testdata, are left out.
func find(root string) (list []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		wide, err := wideLines(path, source)
		list = append(list, wide...)
		return err
	})
	return list, err
}

// wideLines reports the wide lines of one file.
func wideLines(path string, source []byte) (list []string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(source), "\n")
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if comment.Text == "// Output:" || comment.Text == "// Unordered output:" {
				break // what an example prints is as wide as it is
			}
			first, last := fset.Position(comment.Pos()).Line, fset.Position(comment.End()).Line
			for n := first; n <= last; n++ {
				line := strings.TrimRight(lines[n-1], "\r")
				if n == first && !alone(line, comment) || allowed(line) {
					continue
				}
				if w := width(line); w > columns {
					list = append(list, fmt.Sprintf("%s:%d: %d columns", path, n, w))
				}
			}
		}
	}
	return list, nil
}

// alone reports whether nothing stands before the comment on its line.
func alone(line string, comment *ast.Comment) bool {
	return strings.HasPrefix(strings.TrimLeft(line, "\t "), comment.Text[:2])
}

// allowed reports whether a line may be as wide as it is.
func allowed(line string) bool {
	text := strings.TrimLeft(line, "\t ")
	text, slashes := strings.CutPrefix(text, "//")
	directive := slashes && text != "" && text[0] != ' ' && text[0] != '\t'
	preformatted := strings.HasPrefix(text, "\t") || strings.HasPrefix(text, "   ")
	return directive || slashes && preformatted || strings.Contains(text, "://")
}

// width is the number of columns of a line.
func width(line string) int {
	return utf8.RuneCountInString(line) + (tab-1)*strings.Count(line, "\t")
}
