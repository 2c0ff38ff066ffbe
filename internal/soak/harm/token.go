package harm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kvqbook/kvqbook/internal/hubtest"
	"github.com/kvqbook/kvqbook/internal/soak"
)

var token = soak.Part{
	Name:    "token",
	Promise: "The hub's token is in its file and in the requests to the hub, and nowhere else: not in lists of processes, outputs, JSON, logs, crashes or caches.",
	Test:    "`TestQuick/token` in `internal/soak/harm`, `TestServerEchoesTheToken` in `hub`",
	Run:     runToken,
}

func runToken(ctx context.Context, s *soak.Sitting) error {
	server, stop := startHub()
	defer stop()
	for _, signal := range []syscall.Signal{0, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV} {
		name := "download"
		if signal != 0 {
			name = "download that crashes by " + signal.String()
		}
		for s.More(name, soak.Amount{Quick: 1, Full: 10}) {
			if err := tokenDownload(ctx, s, server, signal); err != nil || ctx.Err() != nil {
				return err
			}
			s.Try(name)
		}
	}
	if s.Quick {
		return nil
	}
	kvq, err := program(ctx, s)
	if err != nil || ctx.Err() != nil {
		return err
	}
	for s.More("commands", soak.Amount{Full: 8}) {
		if err := tokenCommands(ctx, s, server, kvq); err != nil || ctx.Err() != nil {
			return err
		}
	}
	for s.More("notebook", soak.Amount{Full: 3}) {
		if err := tokenNotebook(ctx, s, server); err != nil || ctx.Err() != nil {
			return err
		}
		s.Try("notebook")
	}
	return nil
}

// requireSilent looks for the token in what was said.
func requireSilent(s *soak.Sitting, what, said string) {
	if strings.Contains(said, hubToken) {
		s.Fail([]byte(said), "%s tells the token", what)
	}
}

// watchProcesses looks for the token among the arguments of all processes until done is closed.
func watchProcesses(s *soak.Sitting, done <-chan struct{}) {
	for {
		if found := withArguments(hubToken); len(found) > 0 {
			s.Fail([]byte(strings.Join(found, "\n")), "the token is in the arguments of a process")
			return
		}
		select {
		case <-done:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tokenDownload downloads with the token in the environment, to the end or until a signal makes the
// program crash.
func tokenDownload(ctx context.Context, s *soak.Sitting, server *hubtest.Server, signal syscall.Signal) error {
	dir, err := os.MkdirTemp(s.Folder(), "token-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := s.Child(ctx, "download", server.URL, dir)
	cmd.Env = append(cmd.Env, "HF_TOKEN="+hubToken, "GOTRACEBACK=all")
	p, err := start(cmd)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		if signal != 0 && p.says("fetching", time.Minute) {
			time.Sleep(50 * time.Millisecond)
			_ = cmd.Process.Signal(signal) // it may have ended
		}
		p.ended <- <-p.ended
		close(done)
	}()
	watchProcesses(s, done)
	requireSilent(s, fmt.Sprintf("a download (signal %d)", signal), p.out.String())
	return requireNowhere(s, dir, hubToken)
}

// tokenCommands logs in with a token on standard input, and runs what uses it. The token's file is
// the only one that has it, and nobody else may read that.
func tokenCommands(ctx context.Context, s *soak.Sitting, server *hubtest.Server, kvq string) error {
	home, err := os.MkdirTemp(s.Folder(), "home-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	var said strings.Builder
	command := func(input string, args ...string) error {
		cmd := exec.CommandContext(ctx, kvq, args...)
		cmd.Env = environment("HOME="+home, "HF_ENDPOINT="+server.URL, "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "KVQ_COMPILED="+filepath.Join(home, "compiled"))
		cmd.Stdin = strings.NewReader(input)
		done := make(chan struct{})
		ended := make(chan struct{})
		go func() { watchProcesses(s, done); close(ended) }()
		r, err := run(cmd)
		close(done)
		<-ended
		if err != nil {
			return err
		}
		if ctx.Err() == nil && r.status == 2 && strings.Contains(r.stderr, "unknown") {
			return fmt.Errorf("kvq %q: %s", args, r)
		}
		said.WriteString(r.String())
		requireSilent(s, fmt.Sprintf("kvq %q", args), r.String())
		s.Try("commands")
		return nil
	}
	for _, c := range []struct {
		input string
		args  []string
	}{
		{hubToken + "\n", []string{"login"}},
		{"", []string{"whoami"}},
		{"", []string{"download", hubModel}},
		{"", []string{"generate", "--model", hubModel, "--prompt", "hi", "--json"}}, // its files are no model: an error
		{hubToken + "x\n", []string{"login"}},                                       // refused
	} {
		if err := command(c.input, c.args...); err != nil || ctx.Err() != nil {
			return err
		}
	}
	if !strings.Contains(said.String(), "reader") {
		s.Fail([]byte(said.String()), "no command named the token's account: they did not use it")
	}
	var holders []string
	err = filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), hubToken) {
			info, statErr := d.Info()
			if err = errors.Join(err, statErr); err == nil && info.Mode().Perm() != 0o600 {
				s.Fail(nil, "%s, which has the token, may be read by others: %s", path, info.Mode())
			}
			holders = append(holders, path)
		}
		return err
	})
	if len(holders) != 1 || filepath.Base(holders[0]) != "token" {
		s.Fail(nil, "the token is in %q after a login, want its file alone", holders)
	}
	if err := errors.Join(err, command("", "logout")); err != nil {
		return err
	}
	return requireNowhere(s, home, hubToken)
}

// tokenNotebook runs a notebook that uses the token and prints all that it gets.
func tokenNotebook(ctx context.Context, s *soak.Sitting, server *hubtest.Server) error {
	dir, err := os.MkdirTemp(s.Folder(), "notebook-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cell := fmt.Sprintf("import (\n\t\"context\"\n\t\"fmt\"\n\t\"github.com/kvqbook/kvqbook/hub\"\n)\n%%%%\nfor _, id := range []string{%q, \"org/none\"} {\n"+
		"\tpath, err := hub.Fetch(context.Background(), id, hub.Options{CacheDir: %q, Log: func(line string) { fmt.Println(line) }})\n"+
		"\tfmt.Printf(\"%%v %%v %%+v %%#v\\n\", path, err, err, err)\n}\nfmt.Println(\"asked\")", hubModel, filepath.Join(dir, "cache"))
	data, err := notebookOf("%noautoget", cell)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "token.ipynb")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	cmd := workbook(ctx, s, "token", "--save", path)
	cmd.Env = append(cmd.Env, "HF_TOKEN="+hubToken, "HF_ENDPOINT="+server.URL)
	r, err := run(cmd)
	if err != nil || ctx.Err() != nil {
		return err
	}
	requireSilent(s, "a notebook", r.String())
	if saved, err := os.ReadFile(path); err != nil || !strings.Contains(string(saved), `"asked`) || r.status != 0 {
		s.Fail(saved, "the notebook did not run: %v %s", err, r)
	}
	return requireNowhere(s, dir, hubToken)
}
