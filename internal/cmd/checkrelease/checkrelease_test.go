package main

import (
	"archive/zip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"

	"github.com/kvqbook/kvqbook/internal/asset"
	"github.com/kvqbook/kvqbook/internal/cli"
)

// The tree as it is passes what takes moments; the rest is ./scripts/check-release.
func TestThisTree(t *testing.T) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	for name, look := range map[string]func(string) (string, error){"changelog": changelog, "go.mod": modFile, "packages": packages} {
		if found, err := look(root); err != nil || found == "" {
			t.Errorf("%s: %q, %v", name, found, err)
		}
	}
}

// No file that git keeps is larger than a module's may be. ./scripts/check-release says so of what
// is committed; this is sooner, since what was committed once stays in every clone.
func TestFilesAreSmall(t *testing.T) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("git", "ls-files", "-z")
	c.Dir = root
	out, err := c.Output()
	if err != nil {
		t.Skipf("no clone of git: %v", err)
	}
	n := 0
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil {
			continue // removed, and not committed yet
		}
		if n++; info.Size() > mostOfFile {
			t.Errorf("%s has %d bytes, want %d at most", name, info.Size(), mostOfFile)
		}
	}
	if n < 500 {
		t.Errorf("%d files found, want many", n)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Each fault is found.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		look       func(string) (string, error)
		file, text string
		says       string // "" where it is in order
	}{
		"no version":        {changelog, "CHANGELOG.md", "# Changelog\n\n## Unreleased\n", "no section of a version"},
		"another version":   {changelog, "CHANGELOG.md", "## Unreleased\n\n## v99.0.0\n\n## " + cli.Release + "\n", "the newest section is v99.0.0"},
		"a dated version":   {changelog, "CHANGELOG.md", "## Unreleased\n\n## " + cli.Release + " - 2026-11-28\n", ""},
		"another module":    {modFile, "go.mod", "module example.com/fork\n\ngo 1.27\n", "module example.com/fork"},
		"a replace":         {modFile, "go.mod", "module " + asset.Module + "\n\ngo 1.27\n\nreplace a.b/c => ../c\n", "replace a.b/c"},
		"an exclude":        {modFile, "go.mod", "module " + asset.Module + "\n\ngo 1.27\n\nexclude a.b/c v1.0.0\n", "exclude a.b/c"},
		"no workflow":       {workflow, "x", "", "no .github/workflows"},
		"no modules at all": {modFile, "go.mod", "module " + asset.Module + "\n\ngo 1.27\n", ""},
	} {
		found, err := c.look(write(t, t.TempDir(), c.file, c.text))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %q, %v; want %q", name, found, err, c.says)
		}
	}
}

func TestDocumented(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bare.go", "package p\n")
	write(t, dir, "doc.go", "// Package p is a test.\npackage p\n")
	write(t, dir, "a_test.go", "package p_test\n\nfunc ExampleA() {\n\t// Output:\n\t// 1\n}\n\nfunc ExampleB() {}\n")
	for _, c := range []struct {
		p         listedPackage
		commented bool
		examples  int
	}{
		{listedPackage{Dir: dir, GoFiles: []string{"bare.go"}}, false, 0},
		{listedPackage{Dir: dir, GoFiles: []string{"bare.go"}, CgoFiles: []string{"doc.go"}, XTestGoFiles: []string{"a_test.go"}}, true, 1},
	} {
		if commented, examples, err := documented(c.p); commented != c.commented || examples != c.examples || err != nil {
			t.Errorf("%+v: comment %t, %d examples, %v", c.p, commented, examples, err)
		}
	}
}

// A text that is not the whole licence is no licence to pkg.go.dev.
func TestLicence(t *testing.T) {
	root, err := asset.Root()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	m := module.Version{Path: asset.Module, Version: "v0.0.1"}
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"whole":         {string(whole), true},
		"a part":        {string(whole[:len(whole)/2]), false},
		"a few words":   {"Licensed to you.\n", false},
		"and much more": {string(whole) + strings.Repeat("You shall not laugh.\n", 2000), false},
	} {
		path := filepath.Join(t.TempDir(), "m.zip")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		z := zip.NewWriter(f)
		w, err := z.Create(m.Path + "@" + m.Version + "/LICENSE")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(c.text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if found, err := licence(path, m); (err == nil) != c.ok {
			t.Errorf("%s: %q, %v", name, found, err)
		}
	}
}
