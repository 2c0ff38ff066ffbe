package guardtest

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// renameField gives a field of a struct another name in all files of a package that are not tests:
// the package of that import path, of which dir is a copy. C's types are unknown here, and a field
// of a C struct of the same name stays as it is.
func renameField(path, dir, owner, name, to string) error {
	set := token.NewFileSet()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	imported, err := exports(path)
	if err != nil {
		return err
	}
	config := types.Config{
		FakeImportC: true,
		Importer: importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
			return os.Open(imported[path])
		}),
		Error: func(error) {}, // of C's types; the compiler will tell all others
	}
	pkg, _ := config.Check(path, set, files, info)
	object := pkg.Scope().Lookup(owner)
	if object == nil {
		return fmt.Errorf("%s has no %s", dir, owner)
	}
	structure, ok := object.Type().Underlying().(*types.Struct)
	if !ok {
		return fmt.Errorf("%s.%s is no struct", dir, owner)
	}
	var field *types.Var
	for f := range structure.Fields() {
		if f.Name() == name {
			field = f
		}
	}
	if field == nil {
		return fmt.Errorf("%s.%s has no field %s", dir, owner, name)
	}
	places := map[string][]int{} // offsets by file
	for _, idents := range []map[*ast.Ident]types.Object{info.Defs, info.Uses} {
		for ident, object := range idents {
			if object == field {
				p := set.Position(ident.Pos())
				places[p.Filename] = append(places[p.Filename], p.Offset)
			}
		}
	}
	for file, offsets := range places {
		if err := replaceAt(file, offsets, name, to); err != nil {
			return err
		}
	}
	return nil
}

// replaceAt exchanges a word at offsets of a file.
func replaceAt(file string, offsets []int, word, to string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sort.Sort(sort.Reverse(sort.IntSlice(offsets)))
	for _, at := range offsets {
		if string(text[at:at+len(word)]) != word {
			return fmt.Errorf("%s, at %d: not %q", file, at, word)
		}
		text = append(text[:at:at], append([]byte(to), text[at+len(word):]...)...)
	}
	return os.WriteFile(file, text, 0o644)
}

// exports are the files of the compiled packages that a package imports, by their paths.
func exports(path string) (map[string]string, error) {
	out, err := goTool("list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	files := map[string]string{}
	for line := range strings.Lines(out) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return files, nil
}
