package doctest

import (
	"path"
	"strings"
	"testing"
)

// README's tree names every folder with Go code, and nothing that is not there. A line is
// "name  phrase", indented by two spaces for each folder above it.
func TestReadmesTree(t *testing.T) {
	_, text, found := strings.Cut(read(t, "README.md"), "\n## Where things are\n")
	parts := strings.SplitN(text, "```", 3)
	if !found || len(parts) < 3 {
		t.Fatal("README.md has no tree under \"Where things are\"")
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
			t.Errorf("README's tree has %s, which is not there", name)
		}
		if len(fields) < 2 {
			t.Errorf("README's tree says nothing about %s", name)
		}
	}
	missing := map[string]bool{}
	walk(t, func(name string) {
		if folder := path.Dir(name); path.Ext(name) == ".go" && folder != "." && !listed[folder] {
			missing[folder] = true
		}
	})
	for folder := range missing {
		t.Errorf("README's tree lacks %s", folder)
	}
}
