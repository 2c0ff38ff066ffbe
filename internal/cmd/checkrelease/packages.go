package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kvqbook/kvqbook/internal/asset"
)

// listedPackage is what go list says of a package.
type listedPackage struct {
	ImportPath, Dir, Name     string
	GoFiles, CgoFiles         []string
	TestGoFiles, XTestGoFiles []string
}

// readers are folders of what is read and run rather than imported. Their packages need comments
// and no examples: they are examples.
var readers = []string{"examples/", "notebooks/", "docs/"}

// list asks Go for the packages of the clone that others can see.
func list(root string) ([]listedPackage, error) {
	c := exec.Command("go", "list", "-json=ImportPath,Dir,Name,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles", "./...")
	c.Dir = root
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []listedPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		if !strings.Contains(p.ImportPath+"/", "/internal/") {
			packages = append(packages, p)
		}
	}
}

// packages asks of each package that others can see for a comment, and of each one that they import
// for examples.
func packages(root string) (string, error) {
	all, err := list(root)
	if err != nil {
		return "", err
	}
	var faults []error
	public, examples := 0, 0
	for _, p := range all {
		name := strings.TrimPrefix(p.ImportPath, asset.Module+"/")
		commented, n, err := documented(p)
		if err != nil {
			return "", err
		}
		if !commented {
			faults = append(faults, fmt.Errorf("%s has no package comment", name))
		}
		imported := p.Name != "main"
		for _, r := range readers {
			imported = imported && !strings.HasPrefix(name+"/", r)
		}
		if !imported {
			continue
		}
		public, examples = public+1, examples+n
		if n == 0 {
			faults = append(faults, fmt.Errorf("%s has no example", name))
		}
	}
	if public == 0 {
		faults = append(faults, errors.New("no packages found"))
	}
	return fmt.Sprintf("%d to import, with %d examples; %d with a comment", public, examples, len(all)), errors.Join(faults...)
}

// documented tells whether a package has a comment, and counts its examples that are run.
func documented(p listedPackage) (commented bool, examples int, err error) {
	set := token.NewFileSet()
	parse := func(names ...[]string) (files []*ast.File) {
		for _, list := range names {
			for _, name := range list {
				f, parseErr := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.ParseComments)
				err = errors.Join(err, parseErr)
				files = append(files, f)
			}
		}
		return files
	}
	for _, f := range parse(p.GoFiles, p.CgoFiles) {
		commented = commented || f != nil && f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != ""
	}
	tests := parse(p.TestGoFiles, p.XTestGoFiles)
	if err != nil {
		return false, 0, err
	}
	for _, e := range doc.Examples(tests...) {
		if e.Output != "" || e.EmptyOutput {
			examples++
		}
	}
	return commented, examples, nil
}
