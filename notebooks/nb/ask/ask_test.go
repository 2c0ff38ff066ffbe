package ask

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serving listens at a new socket of a folder.
func serving(t *testing.T, handle http.HandlerFunc) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ask") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"data": [{"id": "m", "kvq": {"name": "full"}}, {"id": "m:lowest", "kvq": {"name": "lowest"}}]}`)
			return
		}
		handle(w, r)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

func TestComplete(t *testing.T) {
	var body string
	socket := serving(t, func(w http.ResponseWriter, r *http.Request) {
		data := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(data)
		body = string(data)
		fmt.Fprint(w, "data: {\"choices\": [{\"text\": \" a\", \"logprobs\": {\"tokens\": [\" a\"], \"token_logprobs\": [-0.5], \"top_logprobs\": [{\" a\": -0.5, \" b\": -1.25}]}}]}\n\n")
		w.(http.Flusher).Flush()
		fmt.Fprint(w, "data: {\"choices\": [{\"text\": \" b\", \"logprobs\": null}]}\n\n")
		fmt.Fprint(w, "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 7, \"coded_tokens\": 3, \"prompt_tokens_details\": {\"cached_tokens\": 2}}}\n\ndata: [DONE]\n\n")
	})
	var pieces []string
	a, err := complete(t.Context(), socket, Request{Cache: "lowest", Prompt: "p", MaxTokens: 2, Others: 2}, func(s string) { pieces = append(pieces, s) })
	if err != nil {
		t.Fatal(err)
	}
	if a.Text != " a b" || !slices.Equal(pieces, []string{" a", " b"}) || a.Usage.CodedTokens != 3 || a.Usage.Details.Cached != 2 || a.First <= 0 || a.Took < a.First {
		t.Errorf("answer %+v in pieces %q", a, pieces)
	}
	if len(a.Tokens) != 1 || math.Abs(a.Tokens[0].Margin()-0.75) > 1e-9 {
		t.Errorf("tokens %+v", a.Tokens)
	}
	for _, want := range []string{`"model":"m:lowest"`, `"temperature":0`, `"logprobs":2`, `"max_tokens":2`} {
		if !strings.Contains(body, want) {
			t.Errorf("the request %s has no %s", body, want)
		}
	}
	if _, err := complete(t.Context(), socket, Request{Cache: "tutorial"}, nil); err == nil || !strings.Contains(err.Error(), `full, lowest, not with "tutorial"`) {
		t.Errorf("a cache that is not served: %v", err)
	}
}

func TestMarginOfTheSecond(t *testing.T) {
	if m := (Token{" b", -1.25, map[string]float64{" a": -0.5, " c": -3}}).Margin(); m != -0.75 {
		t.Errorf("margin %g, wanted -0.75", m)
	}
}

func TestSharedAndMedian(t *testing.T) {
	token := func(text string, log float64) Token {
		return Token{text, log, map[string]float64{text: log, "other": -2}}
	}
	a := []Token{token("x", -0.5), token("y", -1), token("z", 0)}
	b := []Token{token("x", -1.9), token("q", -1)}
	if n := Shared(a, b); n != 1 {
		t.Errorf("%d shared, wanted 1", n)
	}
	if n := Shared(a, a[:2]); n != 2 {
		t.Errorf("%d shared with a beginning, wanted 2", n)
	}
	if m := MedianMargin(a); m != 1.5 {
		t.Errorf("median margin %g, wanted 1.5", m)
	}
	if m := MedianMargin(nil); m != 0 {
		t.Errorf("of nothing %g", m)
	}
}

// What is shown keeps it silent, what is not shown does not, and a pause is told with what the
// process does.
func TestSilence(t *testing.T) {
	t.Setenv("GONB_TMP_DIR", t.TempDir())
	if err := os.WriteFile(logPath(), []byte("kvq: serving m\nkvq: 15:18:19 compiling for new tokens\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var said []string
		w := watchSilence(time.Second, func(words string) { said = append(said, words) })
		for range 5 { // shown
			time.Sleep(900 * time.Millisecond)
			w.came(true)
		}
		if synctest.Wait(); len(said) != 0 {
			t.Errorf("while a text is shown: %q", said)
		}
		time.Sleep(1100 * time.Millisecond)
		w.came(false) // not shown
		time.Sleep(time.Second)
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		w.stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"kvq serve is compiling for new tokens", "the text is coming", "kvq serve is compiling for new tokens"}; !slices.Equal(said, want) {
			t.Errorf("said %q, wanted %q", said, want)
		}
	})
}

// What went wrong is one line that says what to do.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ answer, want string }{
		{"data: {\"choices\": [{\"text\": \"x\"}]}\n\n", "in the middle of its answer"},
		{"data: {\"error\": {\"message\": \"the server is ending\"}}\n\n", "kvq serve: the server is ending"},
		{"data: {\n\n", "no event"},
	} {
		socket := serving(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.answer) })
		if _, err := complete(t.Context(), socket, Request{}, func(string) {}); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q gave %v, wanted %q", c.answer, err, c.want)
		}
	}
	socket := serving(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error": {"message": "the text has 9 tokens, the context is 8"}}`)
	})
	if _, err := complete(t.Context(), socket, Request{}, nil); err == nil || err.Error() != "kvq serve: the text has 9 tokens, the context is 8" {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := complete(t.Context(), filepath.Join(t.TempDir(), "s"), Request{}, nil); err == nil || !strings.Contains(err.Error(), "Run the cell with ask.Start") {
		t.Errorf("nobody serves: %v", err)
	}
}

// A cell that is interrupted ends its request.
func TestInterruptedEndsTheRequest(t *testing.T) {
	gone := make(chan struct{})
	socket := serving(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: {\"choices\": [{\"text\": \"x\"}]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := complete(ctx, socket, Request{}, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the server still works")
	}
}

// fake is a kvq whose serve does what a shell script says.
func fake(t *testing.T, script string) (command string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ask")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("GONB_TMP_DIR", dir)
	command = filepath.Join(dir, "kvq")
	if err := os.WriteFile(command, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return command
}

func TestStart(t *testing.T) {
	command := fake(t, `echo "kvq: loading" >&2; echo "kvq: serving m at s, asked by $*" >&2; exec sleep 20`)
	var said []string
	say := func(line string) { said = append(said, line) }
	if err := start(command, []string{"--rows", "1"}, time.Minute, say); err != nil {
		t.Fatal(err)
	}
	if len(said) != 3 || said[0] != "kvq serve --rows 1" || said[1] != "loading" || !strings.HasPrefix(said[2], "it answers after") {
		t.Errorf("said %q", said)
	}
	if log := text(logPath()); !strings.Contains(log, "asked by serve --rows 1 --socket "+socketPath()+" --idle 10m") {
		t.Errorf("called as %q", log)
	}
	// Somebody answers: the same flags start nothing, others end what is there.
	l, err := net.Listen("unix", socketPath())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said = nil
	if err := start(command, []string{"--rows", "1"}, time.Minute, say); err != nil || len(said) != 1 {
		t.Errorf("the same flags: %v, said %q", err, said)
	}
	// It is there and not ready yet, as after an interruption: what it does is waited for.
	if err := os.WriteFile(logPath(), []byte("kvq: loading\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said = nil
	ready := time.AfterFunc(200*time.Millisecond, func() { _ = os.WriteFile(logPath(), []byte("kvq: loading\nkvq: serving m\n"), 0o600) })
	defer ready.Stop()
	if err := start(command, []string{"--rows", "1"}, time.Minute, say); err != nil || len(said) != 2 || said[0] != "loading" {
		t.Errorf("it is not ready yet: %v, said %q", err, said)
	}
	said = nil
	go func() { time.Sleep(200 * time.Millisecond); l.Close() }()
	if err := start(command, []string{"--rows", "2"}, time.Minute, say); err != nil || said[0] != "kvq serve --rows 2" {
		t.Errorf("other flags: %v, said %q", err, said)
	}
	if err := end(socketPath()); err != nil { // the fake one has no socket: it is only told to end
		t.Error(err)
	}
}

func TestStartTellsFailures(t *testing.T) {
	command := fake(t, `echo "kvq: --rows 0, want 1 to 256" >&2; exit 2`)
	if err := start(command, nil, time.Minute, func(string) {}); err == nil || err.Error() != "kvq serve has ended: --rows 0, want 1 to 256" {
		t.Errorf("it ended: %v", err)
	}
	command = fake(t, `echo "kvq: loading" >&2; exec sleep 20`)
	if err := start(command, nil, 200*time.Millisecond, func(string) {}); err == nil || !strings.Contains(err.Error(), "it said last: loading") {
		t.Errorf("it did not answer: %v", err)
	}
}
