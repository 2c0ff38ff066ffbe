//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestLeft(t *testing.T) {
	for shown, want := range map[string]string{
		"one\r\ntwo\r\n":                             "one\ntwo",
		"compiling, 1 s\r\x1b[Kdone\r\n":             "done",
		"\rabc\x1b[K\rab\x1b[Kz":                     "abz",
		"[1] a\n\r[2] b\n\r\x1b[2A\x1b[J[1] whole\n": "[1] whole",
		"日本\r\nb":                                    "日本\nb",
	} {
		if got := left(shown); got != want {
			t.Errorf("%q: %q, want %q", shown, got, want)
		}
	}
}

// A command that tells a stage, waits, and prints is seen as a person sees it.
func TestPlay(t *testing.T) {
	kvq := filepath.Join(t.TempDir(), "kvq")
	script := `#!/bin/sh
printf '\rloading, 0 s\033[K' >&2; sleep 0.8; printf '\n' >&2; printf '\rloading, 1 s, 40 %%\033[K' >&2; printf '\r\033[Knote: hm\n' >&2
read word; printf '> '; sleep 0.2; echo "$word, $KVQ_COMPILED, $*"
`
	if err := os.WriteFile(kvq, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	v, err := scene{args: []string{"chat", "x y"}, types: "hello\n"}.play(kvq, "/here")
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	if v.failure != nil || v.screen != "> hello, /here, chat x y" {
		t.Errorf("%v; the screen has %q", v.failure, v.screen)
	}
	// What is typed is seen before the note or after it: the terminal shows it when it comes.
	var said []string
	for _, s := range v.stages {
		said = append(said, s.says)
	}
	if slices.Sort(said); !slices.Equal(said, []string{"hello", "loading", "note: hm"}) {
		t.Errorf("stages %v, want loading once, what was typed, and a note", v.stages)
	}
	if v.firstLine > v.firstText || v.firstText < 500*time.Millisecond || v.firstText > v.end+time.Second || v.silence < 250*time.Millisecond {
		t.Errorf("%+v", v)
	}
	if v, err := (scene{args: []string{"x"}}).play("/bin/false", ""); err != nil || v.failure == nil || v.firstText >= 0 {
		t.Errorf("what fails in silence: %+v, %v", v, err)
	}
}
