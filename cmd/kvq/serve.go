package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/hub"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/serve"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

func init() { register(newServe) }

// serveFlags are those of serve.
type serveFlags struct {
	model  cli.ModelFlags
	cache  cli.CacheFlags
	socket string
	listen string
	token  string
	name   string
	rows   int
	queue  int
	room   int
	idle   time.Duration
}

func newServe() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Answer other programs with one loaded model, as OpenAI's API does",
		Long: `serve loads and compiles a model once and answers requests until it is ended: /v1/models, /v1/completions and
/v1/chat/completions, at a Unix socket that only you can open, or at a port of this machine with a token.

Requests that come together are generated side by side. A prompt that goes on from what was said before is not read
again. Several presets, with commas, are several caches on one loaded model: a client asks for the first as "NAME", for
another as "NAME:PRESET". Ctrl-C lets answers that are under way end for some seconds; a second one ends at once.`,
		Example: `  kvq serve
  kvq serve --preset balanced --rows 8 --context 8192
  kvq serve --preset full,tutorial,balanced --idle 10m
  kvq serve --listen 127.0.0.1:8080 --token-file token`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	fs.StringVar(&f.socket, "socket", "", "`path` of the Unix socket (default kvq.sock in $XDG_RUNTIME_DIR, else in the user's cache folder)")
	fs.StringVar(&f.listen, "listen", "", "`address` of this machine to listen at instead, such as 127.0.0.1:8080")
	fs.StringVar(&f.token, "token-file", "", "`file` with the token that clients have to send; made where it is not there (default with --listen: kvq.token beside the socket's place)")
	fs.StringVar(&f.name, "name", "", "`name` of the model for clients (default: that of its file)")
	fs.IntVar(&f.rows, "rows", 4, "texts that are generated side by side")
	fs.IntVar(&f.queue, "queue", 64, "requests that may wait for a row")
	fs.IntVar(&f.room, "context", 4096, "tokens of a text at most, prompt and answer together")
	fs.DurationVar(&f.idle, "idle", 0, "end after so long without a request, such as 10m (default: never)")
	cli.UnderMore(fs, "name", "queue", "idle")
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	return c
}

const (
	maxBody     = 4 << 20         // bytes of a request
	maxRequests = 10_000          // that wait
	drain       = 5 * time.Second // for answers that are under way when serve is ended
)

func (f *serveFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	files, err := f.model.Open(c)
	if err != nil {
		return err
	}
	caches, err := f.cache.Configs(c.Flags(), files.Config())
	if err != nil {
		return err
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return err
	}
	if !c.Flags().Changed("context") {
		f.room = min(f.room, files.Config().MaxPositions)
	}
	if err := f.check(files.Config()); err != nil {
		return err
	}
	listener, token, where, err := f.open()
	if err != nil {
		return err
	}
	defer listener.Close()

	status := f.model.Status(errs)
	defer status.Close()
	var requests []fit.Request
	for _, cache := range caches {
		requests = append(requests, fit.Request{Model: files.Config(), Cache: cache.Config, Batch: f.rows, Prompt: f.room / 2, NewTokens: f.room / 2})
	}
	model, err := f.model.Load(ctx, files, errs, requests...)
	if err != nil {
		return err
	}
	defer model.Close(ctx)
	var served []serve.Cache
	var finalize []func()
	var names []string
	for _, cache := range caches {
		f.cache.NoteGroups(errs, c.Flags(), cache.Config, files.Config())
		cli.NoteForm(errs, model.Model, cache.Config)
		g, err := llama.NewGenerator(model.Model, cache.Config)
		if err != nil {
			return err
		}
		served, finalize, names = append(served, serve.Cache{Name: cache.Name, Generator: g}), append(finalize, g.Finalize), append(names, cache.Config.String())
	}
	var ready atomic.Bool
	log := func(format string, args ...any) {
		if !ready.Load() { // what is being waited for
			status.Stage(format, args...)
			return
		}
		fmt.Fprintf(errs, "kvq: "+time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
	}
	if status == nil { // --quiet
		log = nil
	}
	s, err := serve.New(serve.Options{
		Generator: served[0].Generator, CacheName: served[0].Name, Others: served[1:], Tokenizer: tok, Model: cmp.Or(f.name, modelName(files.Path())),
		Rows: f.rows, Queue: f.queue, Context: f.room, BodyBytes: maxBody, Token: token, Log: log,
	})
	if err != nil {
		return err
	}
	defer cli.Finalize(ctx, append([]func(){s.Close}, finalize...)...)
	status.Stage("compiling what every request needs")
	if err := s.Warm(ctx); err != nil {
		return err
	}
	status.Close()
	ready.Store(true)
	fmt.Fprintf(errs, "kvq: serving %s with cache %s at %s\n", files.Path(), strings.Join(names, " or "), where)
	unneeded := make(chan string, 2)
	if f.idle > 0 {
		s.OnIdle(f.idle, func() { unneeded <- fmt.Sprintf("no request for %s", f.idle) })
	}
	if f.listen == "" {
		stop := serve.OnSocketGone(f.socket, func() { unneeded <- f.socket + " was removed, so nobody can ask" })
		defer stop()
	}
	return serveUntilEnded(ctx, listener, s, unneeded, errs)
}

// check refuses numbers that make no server.
func (f *serveFlags) check(model llama.Config) error {
	switch {
	case f.rows < 1 || f.rows > 256:
		return usererr.New("--rows %d, want 1 to 256", f.rows)
	case f.queue < 0 || f.queue > maxRequests:
		return usererr.New("--queue %d, want 0 to %d", f.queue, maxRequests)
	case f.room < 2 || f.room > model.MaxPositions:
		return usererr.New("--context %d, want 2 to the %d tokens that the model reads", f.room, model.MaxPositions)
	case f.idle < 0:
		return usererr.New("--idle %s, want 0 (never) or more", f.idle)
	case f.listen != "" && f.socket != "":
		return usererr.New("--listen beside --socket: want one or the other")
	}
	return nil
}

// open listens, before anything is loaded. where says how clients get there, without the token.
func (f *serveFlags) open() (l net.Listener, token, where string, err error) {
	tokenFile := f.token
	if f.socket == "" || f.listen != "" && tokenFile == "" {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			if dir, err = os.UserCacheDir(); err != nil {
				return nil, "", "", usererr.New("no place for a socket (%w): want --socket PATH", err)
			}
			dir = filepath.Join(dir, "kvqbook")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, "", "", usererr.New("a place for a socket: %w", err)
			}
		}
		if f.listen != "" {
			tokenFile = cmp.Or(tokenFile, filepath.Join(dir, "kvq.token"))
		} else {
			f.socket = filepath.Join(dir, "kvq.sock")
		}
	}
	if tokenFile != "" {
		if token, err = serve.TokenFile(tokenFile); err != nil {
			return nil, "", "", usererr.New("--token-file: %w", err)
		}
	}
	if f.listen != "" {
		if l, err = serve.ListenLoopback(f.listen); err != nil {
			return nil, "", "", usererr.New("--listen %w", err)
		}
		return l, token, fmt.Sprintf("http://%s/v1 (token in %s)", l.Addr(), tokenFile), nil
	}
	if l, err = serve.ListenSocket(f.socket); err != nil {
		return nil, "", "", usererr.New("--socket %w", err)
	}
	if where = f.socket; tokenFile != "" {
		where += " (token in " + tokenFile + ")"
	}
	return l, token, where, nil
}

// modelName is what clients call a model: its name on the hub, else that of its file or folder.
func modelName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if repo, ok := hub.RepoOf(path); ok {
		return repo
	}
	return strings.TrimSuffix(filepath.Base(path), ".gguf")
}

// serveUntilEnded answers until the command is interrupted, or unneeded says why it may end; then
// answers that are under way get some seconds.
func serveUntilEnded(ctx context.Context, l net.Listener, s http.Handler, unneeded <-chan string, errs io.Writer) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	ending := make(chan struct{}, 1)
	outcome := cli.OutcomeOf(ctx)
	outcome.OnSignal(func(os.Signal) bool {
		select {
		case ending <- struct{}{}:
			return true
		default:
			return false // for the second time
		}
	})
	defer outcome.OnSignal(nil)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		_ = server.Close()
		return ctx.Err()
	case <-ending:
	case why := <-unneeded:
		fmt.Fprintf(errs, "kvq: ending: %s\n", why)
	}
	ending <- struct{}{} // so that the next signal ends at once
	wait, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	err := server.Shutdown(wait)
	if errors.Is(err, context.DeadlineExceeded) { // the rest is cut off
		err = nil
		_ = server.Close()
	}
	return cmp.Or(ctx.Err(), err)
}
