package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notInVersion are the packages that the program is made of and that change no result, each by what
// it does: they are not in the hash, so that a change of theirs leaves all rows valid.
var notInVersion = map[string]string{
	"internal/endnames":   "names of tokens that end a text; texts here are given, or their end is forbidden",
	"internal/filesys":    "writes files",
	"internal/gpu":        "asks which GPU there is",
	"internal/hostmemory": "hands memory back",
	"internal/jinja":      "chat templates",
	"internal/kvqhook":    "made-up caches, for benchmarks",
	"internal/pjrt":       "calls of PJRT's C interface",
	"internal/private":    "unexported fields of GoMLX, whose version is in go.mod",
	"internal/stage":      "says what is waited for",
	"internal/usererr":    "marks errors",
}

// A row's version is a hash of files that scripts/quality names. Code that decides about results
// and is not among them could change while rows stay "valid".
func TestVersionCoversWhatDecides(t *testing.T) {
	script, err := os.ReadFile("../../../scripts/quality")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`find (go\.mod [a-z ]+)internal/\{([a-z,]+)\} -type f .*'\*\.go'.*'\*\.\[ch\]'`).FindSubmatch(script)
	if m == nil {
		t.Fatal("scripts/quality names its folders otherwise than this test reads")
	}
	covered := strings.Fields(string(m[1]))
	for name := range strings.SplitSeq(string(m[2]), ",") {
		covered = append(covered, "internal/"+name)
	}
	for _, name := range covered {
		if _, err := os.Stat(filepath.Join("../../..", name)); err != nil {
			t.Error(err) // find would go on without it
		}
	}

	const module = "github.com/kvqbook/kvqbook/"
	out, err := exec.Command("go", "list", "-deps", module+"llama/evaluate", module+"internal/judge/...", module+"internal/passkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	unused := maps.Clone(notInVersion)
	for name := range strings.FieldsSeq(string(out)) {
		name, ours := strings.CutPrefix(name, module)
		if _, left := notInVersion[name]; left || !ours {
			delete(unused, name)
			continue
		}
		if !slices.ContainsFunc(covered, func(folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }) {
			t.Errorf("%s is part of what is measured, and neither in the hash of scripts/quality nor among those that change no result", name)
		}
	}
	for name := range unused {
		t.Errorf("%s is not part of the program any more: it can leave notInVersion", name)
	}
}
