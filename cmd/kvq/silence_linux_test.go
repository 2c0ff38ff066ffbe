package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// longestSilence is how long a person looks at a screen on which nothing moves.
const longestSilence = 2 * time.Second

// On a terminal something moves all the time, from the first second to the last, and what moved is
// gone when the text is there.
func TestNeverSilentOnATerminal(t *testing.T) {
	testlane.Slow(t, "compiles in a process of its own")
	needsXLA(t)
	model := tinyModel(t, nil)
	for _, args := range [][]string{
		{"generate", tinyText(5, 6, 7)},
		{"compare", tinyText(5, 6, 7)},
		{"evaluate", "--text", write(t, []byte(strings.Repeat(tinyText(5, 6, 7), 40)), t.TempDir(), "text.txt")},
	} {
		term := newTerminal(t)
		c := exec.Command(os.Args[0], append(args, "--model", model, "--q-group-size", "8")...)
		c.Env = append(os.Environ(), asKVQ+"=1", "KVQ_COMPILED=off")
		c.Stdin, c.Stdout, c.Stderr = term.kvq, term.kvq, term.kvq
		if err := c.Run(); err != nil {
			t.Fatalf("%v: %v; %s", args, err, term.shown())
		}
		term.mu.Lock()
		silence := max(term.still, time.Since(term.moved))
		term.mu.Unlock()
		if silence > longestSilence {
			t.Errorf("%s: %v without a sign of life, want at most %v", args[0], silence, longestSilence)
		}
		for _, stage := range []string{"loading the model", "compiling for prompts of ", "compiling for "} {
			if !strings.Contains(term.shown(), stage) {
				t.Errorf("%s never said %q:\n%q", args[0], stage, term.shown())
			}
		}
		// What stays on the screen: the last state of each line, without those that were erased.
		left := regexp.MustCompile(`[^\n]*\r\x1b\[K`).ReplaceAllString(term.shown(), "")
		if strings.Contains(left, "compiling for ") || strings.Contains(left, "loading") {
			t.Errorf("%s left a stage on the screen: %q", args[0], left)
		}
	}
}
