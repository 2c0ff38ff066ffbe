package serve

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// line is one cache that is served: a batch of its own on the model that all share.
type line struct {
	model  string // for clients
	name   string // of the cache, "" for none
	cache  string // in words
	batch  *llama.Batch
	engine *engine
}

// open adds a cache.
func (s *Server) open(c Cache) error {
	l := &line{model: s.o.Model, name: c.Name, cache: c.Generator.CacheConfig().String()}
	if len(s.lines) > 0 {
		if c.Name == "" || c.Generator.Model() != s.o.Generator.Model() {
			return usererr.New("serve: want other caches with a name and of the same model, got %q", c.Name)
		}
		l.model += ":" + c.Name
	}
	for _, other := range s.lines {
		if other.name == l.name {
			return usererr.New("serve: two caches have the name %q", c.Name)
		}
	}
	const firstRoom = 1024 // tokens a row; the cache grows
	var err error
	if l.batch, err = c.Generator.NewBatch(s.o.Rows, min(s.o.Context, firstRoom)); err != nil {
		return err
	}
	l.engine = newEngine(l.batch, s.o.Rows+s.o.Queue, func(st stage.Stage) {
		if st.Kind == stage.Compiling {
			which := ""
			if len(s.o.Others) > 0 {
				which = " (" + l.name + ")"
			}
			s.o.Log("compiling for %s%s", st.Of, which)
		}
	})
	s.lines = append(s.lines, l)
	return nil
}

// lineOf is the cache that a client asks for; "" is the first.
func (s *Server) lineOf(model string) (*line, error) {
	var names []string
	for _, l := range s.lines {
		if model == "" || model == l.model || l.name != "" && model == s.o.Model+":"+l.name {
			return l, nil
		}
		names = append(names, strconv.Quote(l.model))
	}
	return nil, refuse(http.StatusNotFound, invalidRequest, "model", "model_not_found", "the model here is %s, got %.200q", strings.Join(names, " or "), model)
}

// Warm makes two short texts with each cache, the second of which goes on from the first, so that
// what every request needs is compiled before the first comes. It is to be called before that.
func (s *Server) Warm(ctx context.Context) error {
	for _, l := range s.lines {
		// The loop, which takes longest, is compiled beside the prompt.
		if err := l.batch.Prepare(llama.GenerateConfig{}); err != nil {
			return err
		}
		for _, n := range []int{10 * s.o.Rows, 10*s.o.Rows + 1} {
			prompt := make([]tokenizer.Token, min(n, s.o.Context-1))
			j := l.engine.begin(ctx, prompt, llama.GenerateConfig{MaxNewTokens: 2, MinNewTokens: 2})
			if err := j.wait(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
