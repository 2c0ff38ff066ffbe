package setuptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// copies makes the reader's copies, and returns what that says.
func copies(t *testing.T, notebooks, folder string) string {
	t.Helper()
	stdout, stderr, status := call(t, exec.Command("python3", filepath.Join(root(t), "scripts", "copies.py"), notebooks, folder))
	if status != 0 || stderr != "" {
		t.Fatalf("copies.py: exit status %d, %s", status, stderr)
	}
	return stdout
}

// A copy follows the committed notebook until the reader changes it, and is never written to after.
func TestCopies(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("this machine lacks python3")
	}
	dir := t.TempDir()
	notebooks, mine := filepath.Join(dir, "notebooks"), filepath.Join(dir, "my-notebooks")
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	one, two := filepath.Join(notebooks, "01-a.ipynb"), filepath.Join(notebooks, "02-b.ipynb")
	write(one, "one")
	write(two, "two")
	write(filepath.Join(notebooks, "solutions", "a.go"), "package solutions")
	for _, step := range []struct {
		name          string
		do            func()
		first, second string // what the copies hold after it
		newer         bool   // it says that the first one is newer
	}{
		{"first opening", func() {}, "one", "two", false},
		{"again", func() {}, "one", "two", false},
		{"the reader writes", func() { write(filepath.Join(mine, "01-a.ipynb"), "one, mine") }, "one, mine", "two", false},
		{"both are committed anew", func() { write(one, "one, newer"); write(two, "two, newer") }, "one, mine", "two, newer", true},
		{"again", func() {}, "one, mine", "two, newer", true},
		{"the reader renames", func() {
			if err := os.Rename(filepath.Join(mine, "01-a.ipynb"), filepath.Join(mine, "mine.ipynb")); err != nil {
				t.Fatal(err)
			}
		}, "one, newer", "two, newer", false},
		{"the list of copies is lost, and a third version", func() {
			if err := os.Remove(filepath.Join(mine, ".made-from.json")); err != nil {
				t.Fatal(err)
			}
			write(one, "one, third")
		}, "one, newer", "two, newer", true},
	} {
		step.do()
		said := copies(t, notebooks, mine)
		for i, want := range []string{step.first, step.second} {
			name := []string{"01-a.ipynb", "02-b.ipynb"}[i]
			if got, err := os.ReadFile(filepath.Join(mine, name)); err != nil || string(got) != want {
				t.Errorf("%s: %s is %q, %v; want %q", step.name, name, got, err, want)
			}
		}
		if newer := strings.Contains(said, "notebooks/01-a.ipynb is newer"); newer != step.newer || strings.Count(said, "\n") > 1 {
			t.Errorf("%s: said %q", step.name, said)
		}
	}
	if got, err := os.ReadFile(filepath.Join(mine, "mine.ipynb")); err != nil || string(got) != "one, mine" {
		t.Errorf("the renamed copy is %q, %v", got, err)
	}
}

// What notebooks link to in this repository is there for the copies too.
func TestLinksOfCopies(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("this machine lacks python3")
	}
	// beside notebooks/, as the real one
	mine := filepath.Join(root(t), fmt.Sprintf("my-notebooks-test-%d", os.Getpid()))
	t.Cleanup(func() { os.RemoveAll(mine) })
	copies(t, filepath.Join(root(t), "notebooks"), mine)
	list, err := filepath.Glob(filepath.Join(mine, "*.ipynb"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no copies: %v", err)
	}
	links := 0
	for _, notebook := range list {
		data, err := os.ReadFile(notebook)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\]\(([\w./-]+\.(?:go|md|ipynb|py|txt))[)#]`).FindAllStringSubmatch(string(data), -1) {
			links++
			if _, err := os.Stat(filepath.Join(mine, match[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(notebook), err)
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
}
