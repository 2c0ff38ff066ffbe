package serve

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Options say what is served, and how much of it. All but CacheName, Others, Token and
// Log are required.
type Options struct {
	Generator *llama.Generator
	// CacheName and Others are for several caches of one model: a client asks for one of them as
	// "MODEL:NAME". The generator above is "MODEL" alone too.
	CacheName string
	Others    []Cache
	Tokenizer *tokenizer.Tokenizer
	Model     string // its name in the API
	Rows      int    // texts that are generated side by side
	Queue     int    // requests that may wait for a row
	Context   int    // tokens of a row at most, prompt and answer together
	BodyBytes int64  // of a request at most

	// Token is what a client has to know ("Authorization: Bearer ..."); "" lets everybody in who
	// reaches the server, as through a socket that only its owner may open.
	Token string
	// Log gets a line for each request: no texts, and no token. nil: nobody is told.
	Log func(format string, args ...any)
}

// Cache is a further cache under a name.
type Cache struct {
	Name      string
	Generator *llama.Generator
}

// Server answers requests. Make it with New, and end it with Close.
type Server struct {
	o       Options
	lines   []*line
	idle    idle
	places  chan struct{} // taken by requests under way
	started time.Time
	mux     *http.ServeMux
}

// New begins to serve. Nothing is compiled yet: see Warm.
func New(o Options) (*Server, error) {
	config := o.Generator.Model().Config()
	switch {
	case o.Rows < 1 || o.Rows > 256:
		return nil, usererr.New("serve: %d rows, want 1 to 256", o.Rows)
	case o.Queue < 0:
		return nil, usererr.New("serve: a queue of %d requests, want 0 or more", o.Queue)
	case o.Context < 2 || o.Context > config.MaxPositions:
		return nil, usererr.New("serve: a context of %d tokens, want 2 to the model's %d", o.Context, config.MaxPositions)
	case o.BodyBytes < 1:
		return nil, usererr.New("serve: requests of at most %d bytes, want at least 1", o.BodyBytes)
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	s := &Server{o: o, places: make(chan struct{}, o.Rows+o.Queue), started: time.Now(), mux: http.NewServeMux()}
	for _, c := range slices.Concat([]Cache{{o.CacheName, o.Generator}}, o.Others) {
		if err := s.open(c); err != nil {
			s.Close()
			return nil, err
		}
	}
	s.mux.HandleFunc("/v1/models", s.method(http.MethodGet, s.models))
	s.mux.HandleFunc("/v1/completions", s.method(http.MethodPost, s.completions(false)))
	s.mux.HandleFunc("/v1/chat/completions", s.method(http.MethodPost, s.completions(true)))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(http.StatusNotFound, invalidRequest, "", "unknown_url", "no such endpoint: %s; want /v1/models, /v1/completions or /v1/chat/completions", r.URL.Path).write(w)
	})
	return s, nil
}

// wait waits until a job is over.
func (j *job) wait(ctx context.Context) error {
	for {
		events, err := j.box.next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.err != nil || e.stop != "" {
				return e.err
			}
		}
	}
}

// Close ends what is under way and frees the caches.
func (s *Server) Close() {
	for _, l := range s.lines {
		l.engine.close()
		l.batch.Finalize()
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.idle.begin()
	defer s.idle.end()
	start, seen := time.Now(), &recorder{ResponseWriter: w, status: http.StatusOK}
	if s.allowed(r) {
		s.mux.ServeHTTP(seen, r)
	} else {
		refuse(http.StatusUnauthorized, invalidRequest, "", "invalid_api_key", "want the server's token: Authorization: Bearer TOKEN").write(seen)
	}
	s.o.Log("%s %.100q %d, %.2f s%s", r.Method, r.URL.Path, seen.status, time.Since(start).Seconds(), seen.note)
}

// recorder sees what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	note   string
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// allowed checks the token in a time that does not depend on what is wrong with it.
func (s *Server) allowed(r *http.Request) bool {
	if s.o.Token == "" {
		return true
	}
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return subtle.ConstantTimeCompare([]byte(token), []byte(s.o.Token)) == 1 && bearer
}

// method lets one method through.
func (s *Server) method(want string, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != want {
			w.Header().Set("Allow", want)
			refuse(http.StatusMethodNotAllowed, invalidRequest, "", "", "want %s %s, got %.20q", want, r.URL.Path, r.Method).write(w)
			return
		}
		handle(w, r)
	}
}

// models is /v1/models. What stands under kvq is not OpenAI's.
func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	var list []any
	for _, l := range s.lines {
		list = append(list, map[string]any{
			"id": l.model, "object": "model", "created": s.started.Unix(), "owned_by": "kvq",
			"kvq": map[string]any{"name": l.name, "cache": l.cache, "context": s.o.Context, "rows": s.o.Rows},
		})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"object": "list", "data": list}) // a client that has gone needs no answer
}

// completions is /v1/completions, or /v1/chat/completions.
func (s *Server) completions(chat bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.places <- struct{}{}:
			defer func() { <-s.places }()
		default:
			refuse(http.StatusTooManyRequests, "rate_limit_error", "", "queue_full", "%d requests are under way already, try again", cap(s.places)).write(w)
			return
		}
		err := s.complete(w, r, chat)
		var begun errBegun
		switch {
		case err == nil:
		case r.Context().Err() != nil:
			if seen, ok := w.(*recorder); ok {
				seen.note += ", the client has gone"
			}
		case errors.As(err, &begun):
			if seen, ok := w.(*recorder); ok {
				seen.note += ", failed"
			}
		default:
			asAPI(err).write(w)
		}
	}
}

func (s *Server) complete(w http.ResponseWriter, r *http.Request, chat bool) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel() // a row whose answer is not wanted any more is freed
	q, err := parseRequest(w, r, s.o.BodyBytes)
	if err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	l, err := s.lineOf(q.Model)
	if err != nil {
		return err
	}
	gc, top, err := q.settings(s.o.Tokenizer, chat)
	if err != nil {
		return err
	}
	limit, err := q.limit(chat)
	if err != nil {
		return err
	}
	var prompts [][]tokenizer.Token
	if chat {
		var ids []tokenizer.Token
		ids, err = q.conversation(ctx, s.o.Tokenizer)
		prompts = [][]tokenizer.Token{ids}
	} else {
		prompts, err = q.prompts(s.o.Tokenizer)
	}
	if err != nil {
		return err
	}
	var answers []*answer
	for _, prompt := range prompts {
		if err := s.checkPrompt(prompt, chat); err != nil {
			return err
		}
	}
	for i, prompt := range prompts {
		one := gc
		one.MaxNewTokens = min(limit, s.o.Context-len(prompt)+1)
		one.Seed += int64(i) // each of several prompts has numbers of its own
		answers = append(answers, newAnswer(l.engine.begin(ctx, prompt, one), i, top))
	}
	f := form{id: newID(chat), model: l.model, chat: chat, created: time.Now().Unix(), tok: s.o.Tokenizer}
	if q.Stream {
		err = f.stream(ctx, w, answers, q.StreamOptions != nil && q.StreamOptions.IncludeUsage)
	} else {
		err = f.whole(ctx, w, answers)
	}
	if seen, ok := w.(*recorder); ok {
		u := usageOf(answers)
		seen.note = noteOf(u)
	}
	return err
}

// checkPrompt refuses tokens that a row has no room for or the model does not know.
func (s *Server) checkPrompt(prompt []tokenizer.Token, chat bool) error {
	param, vocabulary := "prompt", s.o.Generator.Model().Config().VocabSize
	if chat {
		param = "messages"
	}
	if len(prompt) == 0 {
		return badRequest(param, "want at least one token, got an empty text")
	}
	if n := len(prompt); n > s.o.Context {
		return refuse(http.StatusBadRequest, invalidRequest, param, "context_length_exceeded", "the text has %d tokens, the context is %d", n, s.o.Context)
	}
	for _, id := range prompt {
		if int(id) >= vocabulary {
			text, _ := s.o.Tokenizer.Piece(id)
			return badRequest(param, "the text holds %.60q, which the tokenizer knows and the model does not", text)
		}
	}
	return nil
}

// newID names an answer.
func newID(chat bool) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // does not fail
	if chat {
		return "chatcmpl-" + hex.EncodeToString(b[:])
	}
	return "cmpl-" + hex.EncodeToString(b[:])
}

// noteOf is what a line of the log says of an answer.
func noteOf(u *usage) string {
	return fmt.Sprintf(", %d tokens read (%d kept), %d made", u.Prompt-u.Details.Cached, u.Details.Cached, u.Completion)
}
