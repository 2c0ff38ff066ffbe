package main

import (
	"net/http"
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

// said are the stages of a command that loads a model and generates.
var said = []string{"loading the model", "compiling for prompts of ", "compiling for "}

// On a terminal something moves all the time, from the first second to the last, and what moved is
// gone when the text is there.
func TestNeverSilentOnATerminal(t *testing.T) {
	testlane.Slow(t, "compiles in a process of its own")
	needsXLA(t)
	model := tinyModel(t, nil)
	text := write(t, []byte(strings.Repeat(tinyText(5, 6, 7), 40)), t.TempDir(), "text.txt")
	for _, args := range [][]string{{"generate", tinyText(5, 6, 7)}, {"compare", tinyText(5, 6, 7)}, {"evaluate", "--text", text}} {
		neverSilent(t, said, append(args, "--model", model, "--q-group-size", "8")...)
	}
}

// The same of the other commands that one waits for.
func TestNeverSilentElsewhere(t *testing.T) {
	testlane.OnlyAll(t, "compiles in processes of their own")
	needsXLA(t)
	model := tinyModel(t, map1("head_dim", 32))
	text := write(t, []byte(strings.Repeat(tinyText(5, 6, 7), 40)), t.TempDir(), "text.txt")
	once := []string{"--tokens", "64", "--batches", "1", "--runs", "1", "--steps", "4"}
	sides := []string{"starting a process that loads the model"}
	for _, c := range []struct {
		said []string
		args []string
	}{
		{said, []string{"choose", "--text", text, "--max-kl", "10"}},
		{[]string{"compiling for a prompt of 128 tokens and a step"}, []string{"memory", "--measure", "--context", "128"}},
		{said, []string{"passkey", "--lengths", "480", "--trials", "2", "--batch", "2"}},
		{said[:1], []string{"presets", "--measure", "--runs", "1", "--steps", "4"}},
		{append(said[:1:1], "compiling for new tokens", "timing decode with 64 tokens, batch 1"), append([]string{"bench", "decode"}, once...)},
		{append(said[:1:1], "measuring the memory's bandwidth", "timing decode with 64 tokens"), append([]string{"bench", "growth"}, once...)},
		{[]string{"timing compiling for prompts of 64 tokens"}, append([]string{"bench", "compile"}, once...)},
		{append(sides[:1:1], "timing the reading of 64 tokens"), append([]string{"bench", "prefill"}, once...)},
		{append(sides[:1:1], "compiling and decoding in it"), append([]string{"bench", "memory"}, once...)},
		{append(sides[:1:1], "timing the reading of 40 tokens", "timing decoding after 32 tokens"), []string{"bench", "peers", "--contexts", "32", "--prefill", "40", "--runs", "1", "--steps", "4"}},
	} {
		neverSilent(t, c.said, append(c.args, "--model", model)...)
	}
	neverSilent(t, []string{"compiling attention 4/2/32 for 64 tokens, batch 1", "timing 64 tokens, batch 1, "}, append([]string{"bench", "attention", "--shape", "4/2/32"}, once...)...)
}

// A hub that takes its time is waited for in a line that moves, and tells how far it is.
func TestNeverSilentFromTheHub(t *testing.T) {
	u := newHubUser(t, licensed)
	u.hub.SetFaults(func(http.ResponseWriter, *http.Request) bool { time.Sleep(300 * time.Millisecond); return false }, nil)
	shown := neverSilent(t, []string{"asking the hub for " + llama2 + ", 0 s", "fetching " + llama2 + ", 0 s"}, "download", llama2)
	if !strings.Contains(shown, "kB of ") || strings.Contains(shown, "fetching "+llama2+": ") {
		t.Errorf("%q", shown)
	}
}

// neverSilent runs kvq on a terminal, and returns what it showed.
func neverSilent(t *testing.T, stages []string, args ...string) string {
	t.Helper()
	term := newTerminal(t)
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asKVQ+"=1", "KVQ_COMPILED=off")
	c.Stdin, c.Stdout, c.Stderr = term.kvq, term.kvq, term.kvq
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %v; %s", args, err, term.shown())
	}
	silence := term.Silence()
	term.End()
	name := strings.Join(args[:2], " ")
	if silence > longestSilence {
		t.Errorf("%s: %v without a sign of life, want at most %v", name, silence, longestSilence)
	}
	for _, stage := range stages {
		if !strings.Contains(term.shown(), stage) {
			t.Errorf("%s never said %q:\n%q", name, stage, term.shown())
		}
	}
	// What stays on the screen: the last state of each line, without those that were erased.
	left := regexp.MustCompile(`[^\n]*\r\x1b\[K`).ReplaceAllString(term.shown(), "")
	for _, word := range []string{"compiling ", "loading", "timing ", "starting ", "asking ", "fetching "} {
		if strings.Contains(left, word) {
			t.Errorf("%s left a stage on the screen: %q", name, left)
		}
	}
	return term.shown()
}
