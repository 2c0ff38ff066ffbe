package doctest

import (
	"path"
	"strings"
	"testing"
)

// The tree of docs/tree.md names every folder with Go code, and nothing that is not there. A line
// is "name phrase", indented by two spaces for each folder above it.
func TestTree(t *testing.T) {
	parts := strings.SplitN(read(t, "docs/tree.md"), "```", 3)
	if len(parts) < 3 {
		t.Fatal("docs/tree.md has no tree")
	}
	listed := map[string]bool{}
	var above []string
	for line := range strings.Lines(parts[1]) {
		fields := strings.Fields(line)
		// what goes on from the line before
		if len(fields) == 0 || strings.HasPrefix(line, "     ") {
			continue
		}
		depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		if depth > len(above) {
			t.Fatalf("%q is indented too far", line)
		}
		above = append(above[:depth], fields[0])
		name := path.Join(above...)
		if listed[name] = true; !exists(name) {
			t.Errorf("docs/tree.md has %s, which is not there", name)
		}
		if len(fields) < 2 {
			t.Errorf("docs/tree.md says nothing about %s", name)
		}
	}
	missing := map[string]bool{}
	walk(t, func(name string) {
		if folder := path.Dir(name); path.Ext(name) == ".go" && folder != "." && !listed[folder] {
			missing[folder] = true
		}
	})
	for folder := range missing {
		t.Errorf("docs/tree.md lacks %s", folder)
	}
}
