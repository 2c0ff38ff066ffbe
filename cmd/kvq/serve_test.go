package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/testlane"
)

// overSocket is a client of a Unix socket.
func overSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// serve in a process of its own answers over its socket what generate prints, lets an answer end
// when it is told to end, and leaves no socket behind.
func TestServe(t *testing.T) {
	testlane.OnlyAll(t, "waits for a process that compiles; internal/serve tests what it answers")
	needsXLA(t)
	model, dir := tinyModel(t, nil), t.TempDir()
	path := filepath.Join(dir, "s")
	c := exec.Command(os.Args[0], "serve", "--model", model, "--cache", "full", "--socket", path, "--rows", "2", "--name", "mine")
	c.Env = append(os.Environ(), asKVQ+"=1")
	errs := &locked{}
	c.Stderr = errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*patience, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	for start := time.Now(); !strings.Contains(errs.String(), "kvq: serving"); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("it does not serve: %s", errs.String())
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	client := overSocket(path)
	ask := func(body string) (text string) {
		resp, err := client.Post("http://kvq/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return ""
		}
		defer resp.Body.Close()
		var r struct{ Choices []struct{ Text string } }
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || len(r.Choices) != 1 {
			t.Errorf("status %d, %v", resp.StatusCode, err)
			return ""
		}
		return r.Choices[0].Text
	}
	want := parse[generateJSON](t, mustRun(t, "", "generate", "--model", model, "--cache", "full", tinyText(5, 6, 7), "-n", "9", "--json", "--quiet"))
	if got := ask(`{"model": "mine", "prompt": "` + tinyText(5, 6, 7) + `", "max_tokens": 9, "temperature": 0}`); got != want.Prompts[0].Text {
		t.Errorf("answered %q, generate prints %q", got, want.Prompts[0].Text)
	}
	if status, _, errs := runKVQ(t, "", "serve", "--model", model, "--cache", "full", "--socket", path); status != exitBadInput || !strings.Contains(errs, "another process serves there") {
		t.Errorf("a second server: status %d, %q", status, errs)
	}
	// An answer under way ends before the process does.
	resp, err := client.Post("http://kvq/v1/completions", "application/json", strings.NewReader(`{"prompt": "`+tinyText(9)+`", "max_tokens": 60, "temperature": 0, "stream": true}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err != nil || !bytes.HasSuffix(data, []byte("data: [DONE]\n\n")) {
		t.Errorf("the answer under way ended with %v: %.100q", err, data[max(0, len(data)-100):])
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v; %s", err, errs.String())
	}
	if list, _ := os.ReadDir(dir); len(list) != 0 {
		t.Errorf("%d files left beside the socket", len(list))
	}
}

// locked is a buffer that is written and read at the same time.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Flags that make no server are refused before anything is loaded.
func TestServeRefusals(t *testing.T) {
	model, dir := tinyModel(t, nil), t.TempDir()
	open := write(t, []byte("a token that others may read\n"), dir, "open")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Setenv("XDG_RUNTIME_DIR", dir) // for the token
	for flags, want := range map[string]string{
		"--rows 0":      "--rows 0, want 1 to 256",
		"--queue -1":    "--queue -1, want 0 to",
		"--idle -1s":    "--idle -1s, want 0 (never) or more",
		"--context 513": "--context 513, want 2 to the 512 tokens that the model reads",
		"--listen 0.0.0.0:80 --token-file " + dir + "/t": `--listen "0.0.0.0:80", want an address of this machine alone`,
		"--listen 127.0.0.1:0 --socket s":                "--listen beside --socket",
		"--listen 127.0.0.1:0 --token-file " + open:      "others may read it",
		"--listen 127.0.0.1:0 --token-file " + dir:       "is no file",
		"--listen 127.0.0.1:99999":                       `--listen "127.0.0.1:99999": invalid port`,
		"--listen " + taken.Addr().String():              `": address already in use`,
		"--socket " + open:                               "no socket",
	} {
		status, _, errs := runKVQ(t, "", append([]string{"serve", "--model", model, "--cache", "full"}, strings.Fields(flags)...)...)
		if status != exitBadInput || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 || strings.Contains(errs, "a token that") {
			t.Errorf("%s: status %d, %q, want one line with %q", flags, status, errs, want)
		}
	}
}
