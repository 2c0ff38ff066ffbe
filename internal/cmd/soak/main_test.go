package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/soak"
)

func TestMain(m *testing.M) {
	soak.RunChild()
	os.Exit(m.Run())
}

var update = flag.Bool("update", false, "write the rows of docs/reliability.md, with the figures that are there")

// docs/reliability.md has a row for every part, with its promise and tests; -update writes them.
func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "..", soak.Document)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		text, err := soak.UpdateDocument(string(data), parts)
		if err != nil {
			t.Fatal(err)
		}
		if err := filesys.Write(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		data = []byte(text)
	}
	for _, line := range soak.CheckDocument(string(data), parts) {
		t.Errorf("%s: %s", soak.Document, line)
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		out    string // of standard output, or of standard error where status is not 0
	}{
		{"--help", 0, "usage: scripts/soak"},
		{"--list", 0, "fuzz "},
		{"--slow", 2, "--help"},
		{"fuss", 2, `no part "fuss"`},
		{"--time 1x fuzz", 2, "--help"},
	} {
		var out, errs bytes.Buffer
		status := run(strings.Fields(c.args), &out, &errs)
		shown := &out
		if c.status != 0 {
			shown = &errs
			if n := strings.Count(errs.String(), "\n"); n != 1 {
				t.Errorf("%s: %d lines: %s", c.args, n, &errs)
			}
		}
		if status != c.status || !strings.Contains(shown.String(), c.out) {
			t.Errorf("%s: exit status %d, %s%s; want %d and %q", c.args, status, &out, &errs, c.status, c.out)
		}
	}
}
