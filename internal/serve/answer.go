package serve

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// answer is one text that grows.
type answer struct {
	job    *job
	index  int
	top    int // others whose log probabilities are wanted
	text   *tokenizer.Stream
	stop   *tokenizer.Stopper
	tok    *tokenizer.Tokenizer
	count  int // new tokens
	length int // characters of the text so far
	kept   int
	reason llama.StopReason
	end    *rowEnd
}

func newAnswer(j *job, index, top int) *answer {
	return &answer{
		job: j, index: index, top: top, tok: j.gc.Tokenizer,
		text: j.gc.Tokenizer.StreamAfter(j.prompt, true), stop: tokenizer.NewStopper(j.gc.StopStrings...),
	}
}

// piece is what an event adds to an answer.
type piece struct {
	text     string
	logprobs []scored // nil: not wanted
	over     bool
}

// take turns an event into text.
func (a *answer) take(e event) (piece, error) {
	if e.err != nil {
		return piece{}, e.err
	}
	var p piece
	a.count += len(e.tokens)
	a.kept += e.kept
	p.text, _ = a.stop.Push(a.text.Push(e.tokens...))
	for i, logits := range e.logits {
		p.logprobs = append(p.logprobs, score(logits, e.tokens[i], a.top))
	}
	if e.stop != "" {
		rest, _ := a.stop.Push(a.text.Flush())
		p.text += rest + a.stop.Flush()
		a.reason, a.end, p.over = e.stop, e.end, true
	}
	a.length += len([]rune(p.text))
	return p, nil
}

// finish is why the answer ended, in the words of the API.
func (a *answer) finish() *string {
	reason := "stop"
	switch a.reason {
	case "":
		return nil
	case llama.StopLength, llama.StopContext:
		reason = "length"
	}
	return &reason
}

// follow shows every piece of all answers, as they come, until all are over.
func follow(ctx context.Context, answers []*answer, show func(*answer, piece) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type news struct {
		answer *answer
		events []event
		err    error
	}
	all := make(chan news)
	for _, a := range answers {
		go func() {
			for over := false; !over; {
				events, err := a.job.box.next(ctx)
				if over = err != nil; !over {
					last := events[len(events)-1]
					over = last.stop != "" || last.err != nil
				}
				select {
				case all <- news{a, events, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for open := len(answers); open > 0; {
		var n news
		select {
		case n = <-all:
		case <-ctx.Done():
			return ctx.Err()
		}
		if n.err != nil {
			return n.err
		}
		for _, e := range n.events {
			p, err := n.answer.take(e)
			if err != nil {
				return err
			}
			if err := show(n.answer, p); err != nil {
				return err
			}
			if p.over {
				open--
			}
		}
	}
	return nil
}

// usage is what answers took. The fields after the first four are not OpenAI's.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
	Details    struct {
		Cached int `json:"cached_tokens"` // were not read again
	} `json:"prompt_tokens_details"`

	CacheTokens int   `json:"cache_tokens"`               // that the rows hold now
	CodedTokens int   `json:"coded_tokens"`               // of these, in codes
	CacheBytes  int64 `json:"cache_bytes"`                // of the whole cache, all its rows
	FullBytes   int64 `json:"full_precision_cache_bytes"` // of one in full precision with as much room
}

func usageOf(answers []*answer) *usage {
	u := &usage{}
	for _, a := range answers {
		u.Prompt += len(a.job.prompt)
		u.Completion += a.count
		u.Details.Cached += a.kept
		if a.end != nil {
			u.CacheTokens += a.end.held
			u.CodedTokens += a.end.coded
			u.CacheBytes, u.FullBytes = a.end.bytes, a.end.fullBytes
		}
	}
	u.Total = u.Prompt + u.Completion
	return u
}

// completion is the body of an answer, or of a part of it.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

type choice struct {
	Index    int     `json:"index"`
	Text     *string `json:"text,omitempty"`
	Message  *said   `json:"message,omitempty"`
	Delta    *said   `json:"delta,omitempty"`
	Logprobs any     `json:"logprobs"`
	Finish   *string `json:"finish_reason"`
}

type said struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

// form makes the bodies of one request.
type form struct {
	id, model string
	chat      bool
	created   int64
	tok       *tokenizer.Tokenizer
}

func (f form) body(object string, choices ...choice) completion {
	if choices == nil {
		choices = []choice{}
	}
	return completion{ID: f.id, Object: object, Created: f.created, Model: f.model, Choices: choices}
}

// whole answers at once.
func (f form) whole(ctx context.Context, w http.ResponseWriter, answers []*answer) error {
	texts, scores, offsets := make([]string, len(answers)), make([][]scored, len(answers)), 0
	err := follow(ctx, answers, func(a *answer, p piece) error {
		texts[a.index] += p.text
		scores[a.index] = append(scores[a.index], p.logprobs...)
		return nil
	})
	if err != nil {
		return err
	}
	object := "text_completion"
	if f.chat {
		object = "chat.completion"
	}
	body := f.body(object)
	for i, a := range answers {
		c := choice{Index: i, Logprobs: logprobsOf(f.tok, scores[i], f.chat, offsets), Finish: a.finish()}
		if f.chat {
			c.Message = &said{Role: "assistant", Content: &texts[i]}
		} else {
			c.Text = &texts[i]
		}
		body.Choices = append(body.Choices, c)
	}
	body.Usage = usageOf(answers)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // where the connection has deadlines
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(body)
}

// writeTimeout is how long a client may take to read an event.
const writeTimeout = 30 * time.Second

// stream answers in server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html),
// as they come. A failure after the first of them is an event too.
func (f form) stream(ctx context.Context, w http.ResponseWriter, answers []*answer, withUsage bool) error {
	out, begun := http.NewResponseController(w), false
	send := func(data []byte) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Cache-Control", "no-cache")
			w.WriteHeader(http.StatusOK)
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout)) // where the connection has deadlines
		if _, err := w.Write(append(append([]byte("data: "), data...), "\n\n"...)); err != nil {
			return err
		}
		return out.Flush()
	}
	object := "text_completion"
	if f.chat {
		object = "chat.completion.chunk"
	}
	event := func(body completion) error {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		return send(data)
	}
	first := make([]bool, len(answers))
	err := follow(ctx, answers, func(a *answer, p piece) error {
		if p.text == "" && !p.over && p.logprobs == nil {
			return nil
		}
		c := choice{Index: a.index, Logprobs: logprobsOf(f.tok, p.logprobs, f.chat, a.length-len([]rune(p.text))), Finish: a.finish()}
		if f.chat {
			c.Delta = &said{Content: &p.text}
			if !first[a.index] {
				first[a.index], c.Delta.Role = true, "assistant"
			}
		} else {
			c.Text = &p.text
		}
		return event(f.body(object, c))
	})
	switch {
	case err != nil && !begun:
		return err
	case err != nil:
		if ctx.Err() == nil { // else nobody listens
			_ = send(asAPI(err).encoded())
		}
		return errBegun{err}
	}
	if withUsage {
		body := f.body(object)
		body.Usage = usageOf(answers)
		if err := event(body); err != nil {
			return errBegun{err}
		}
	}
	if err := send([]byte("[DONE]")); err != nil {
		return errBegun{err}
	}
	return nil
}

// errBegun is a failure after the answer began, which cannot become another answer.
type errBegun struct{ error }
