package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// endless is a model with a context so long that a generation does not end during a test.
func endless(t testing.TB) []string {
	model := tinyModel(t, func(c map[string]any) { c["max_position_embeddings"] = 1 << 20 })
	return []string{"--quiet", "--model", model, "--q-group-size", "8", "--max-new-tokens", "900000", "--min-new-tokens", "900000", "--prompt", tinyText(5, 6, 7)}
}

// patience is how long a test waits for what should take a second.
const patience = 60 * time.Second

// Ctrl-C ends a generation with status 130 and the text so far.
func TestInterruptPrintsTheTextSoFar(t *testing.T) {
	testlane.Slow(t, "waits for processes")
	needsXLA(t)
	c := exec.Command(os.Args[0], append([]string{"generate"}, endless(t)...)...)
	c.Env = append(os.Environ(), asKVQ+"=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stderr = &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	first := make([]byte, 30)
	if _, err := io.ReadFull(out, first); err != nil {
		t.Fatalf("no text: %v; %s", err, errs.String())
	}
	start := time.Now()
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // its status is what counts
	t.Logf("ended %v after the signal", time.Since(start))
	if got := c.ProcessState.ExitCode(); got != exitInterrupted {
		t.Errorf("status %d, want %d; %s", got, exitInterrupted, errs.String())
	}
	text := string(first) + string(rest)
	if !strings.HasPrefix(text, tinyText(5, 6, 7)) || !strings.HasSuffix(text, "\n") || strings.Count(text, "\n") != 1 {
		t.Errorf("printed %.60q, want one whole line that begins with the prompt", text)
	}
	if errs.String() != "kvq: interrupted\n" {
		t.Errorf("said %q, want %q", errs.String(), "kvq: interrupted\n")
	}
}

// With --json there is one whole object, whenever the interruption comes.
func TestInterruptJSON(t *testing.T) {
	testlane.Slow(t, "waits for processes")
	needsXLA(t)
	for _, command := range []string{"generate", "compare"} {
		t.Run(command, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			var out, errs bytes.Buffer
			status := execute(ctx, append([]string{command, "--json"}, endless(t)...), strings.NewReader(""), &out, &errs)
			if status != exitInterrupted || errs.String() != "kvq: interrupted\n" {
				t.Errorf("status %d, said %q; want %d, interrupted", status, errs.String(), exitInterrupted)
			}
			if command == "compare" {
				j := parse[compareJSON](t, out.String())
				if !j.Interrupted || len(j.Prompts) != 1 {
					t.Errorf("%s, want an interrupted object with the prompt", out.String())
				}
				t.Logf("%d tokens so far", len(j.Prompts[0].Full.OutputIDs))
				return
			}
			j := parse[generateJSON](t, out.String())
			if !j.Interrupted || len(j.Prompts) != 1 || j.Prompts[0].OutputIDs == nil || j.Prompts[0].Text != textOf(j.Prompts[0].OutputIDs) {
				t.Errorf("%.200s, want an interrupted object with what there is", out.String())
			}
			t.Logf("%d tokens so far", len(j.Prompts[0].OutputIDs))
		})
	}
}
