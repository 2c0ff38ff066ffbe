// Package ask lets a cell ask a model that is loaded already: a process of `kvq serve` that the
// notebook starts once ([Start]). It imports the standard library alone, so a cell with it is built
// in well under a second.
//
// As in package nb, what cannot be done ends the cell with one line.
package ask

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is a text to be continued with the most likely tokens.
type Request struct {
	Cache     string // as --preset names it; "" is the first that is served
	Prompt    string
	MaxTokens int
	// Others is of how many of the likeliest tokens, beside each that was taken, the log
	// probabilities are wanted: 0 for none, 20 at most.
	Others int
}

// Answer is what came.
type Answer struct {
	Text   string
	Tokens []Token // only where Others were asked for
	Usage  Usage
	First  time.Duration // from the request to the first text
	Took   time.Duration
}

// Token is a token of an answer.
type Token struct {
	Text string
	Log  float64 // its log probability, in nats
	// Others are the likeliest tokens and their log probabilities, it among them where it is one.
	Others map[string]float64
}

// Margin is by how much the token was likelier than the likeliest other, as a difference of log
// probabilities in nats. It is negative where another was likelier.
func (t Token) Margin() float64 {
	best, found := 0.0, false
	for text, log := range t.Others {
		if text != t.Text && (!found || log > best) {
			best, found = log, true
		}
	}
	return t.Log - best
}

// Shared is how many tokens two texts have in common before they part.
func Shared(a, b []Token) (n int) {
	for n < min(len(a), len(b)) && a[n].Text == b[n].Text {
		n++
	}
	return n
}

// MedianMargin is that of some tokens; 0 of none.
func MedianMargin(tokens []Token) float64 {
	if len(tokens) == 0 {
		return 0
	}
	var all []float64
	for _, t := range tokens {
		all = append(all, t.Margin())
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// Usage is what the server says of its cache.
type Usage struct {
	PromptTokens int `json:"prompt_tokens"`
	Details      struct {
		Cached int `json:"cached_tokens"` // of the prompt, were in the cache already
	} `json:"prompt_tokens_details"`
	NewTokens   int   `json:"completion_tokens"`
	CacheTokens int   `json:"cache_tokens"`
	CodedTokens int   `json:"coded_tokens"`
	CacheBytes  int64 `json:"cache_bytes"`
	FullBytes   int64 `json:"full_precision_cache_bytes"`
}

// Show prints a text as it comes, with its prompt before it, and returns it. An interrupted cell
// ends the request too.
func Show(r Request) Answer {
	fmt.Print(r.Prompt)
	defer fmt.Println()
	return asked(r, func(text string) { fmt.Print(text) })
}

// Quietly is Show without printing.
func Quietly(r Request) Answer { return asked(r, nil) }

// asked makes a request, and never leaves the cell silent for two seconds.
func asked(r Request, show func(string)) Answer {
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt) // the cell ends with it
	w := watchSilence(1500*time.Millisecond, func(words string) { fmt.Fprintf(os.Stderr, "[%s]\n", words) })
	answer, err := complete(ctx, socketPath(), r, func(text string) {
		w.came(show != nil)
		if show != nil {
			show(text)
		}
	})
	w.stop()
	if errors.Is(err, context.Canceled) {
		fmt.Println()
		os.Exit(1)
	}
	check(err)
	return answer
}

// silence says what is waited for whenever nothing was shown for some time.
type silence struct {
	mu     sync.Mutex
	after  time.Duration
	say    func(string)
	timer  *time.Timer
	pieces int // that came
	told   int // of these, when it spoke last
}

func watchSilence(after time.Duration, say func(string)) *silence {
	w := &silence{after: after, say: say}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(after, w.speak)
	return w
}

func (w *silence) came(shown bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pieces++; shown && w.timer != nil {
		w.told = w.pieces
		w.timer.Reset(w.after)
	}
}

func (w *silence) speak() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return
	}
	words := "kvq serve has not answered yet"
	if _, compiling, found := strings.Cut(lastLine(logPath()), "compiling "); found {
		words = "kvq serve is compiling " + compiling
	}
	if w.pieces > w.told {
		words = "the text is coming"
	}
	w.told = w.pieces
	w.say(words)
	w.timer.Reset(w.after)
}

func (w *silence) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// check ends the cell with the error in one line, if there is one.
func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// over is a client of a socket.
func over(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
}

// goneError is what is said where nobody serves.
func goneError(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return errors.New("no kvq serve answers this notebook: it was not started, or it has ended. Run the cell with ask.Start, and this one again")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("kvq serve has ended in the middle of its answer. Run the cell with ask.Start, and this one again")
	}
	return err
}

// modelOf finds the name under which a server has a cache.
func modelOf(ctx context.Context, client *http.Client, cache string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kvq/v1/models", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", goneError(err)
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID  string
			KVQ struct{ Name string }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Data) == 0 {
		return "", fmt.Errorf("kvq serve lists no model (status %d)", resp.StatusCode)
	}
	var names []string
	for _, m := range list.Data {
		if cache == "" || m.KVQ.Name == cache {
			return m.ID, nil
		}
		names = append(names, m.KVQ.Name)
	}
	return "", fmt.Errorf("kvq serve was started with the caches %s, not with %q: change the cell with ask.Start and run it again", strings.Join(names, ", "), cache)
}

func complete(ctx context.Context, socket string, q Request, show func(string)) (Answer, error) {
	start, client := time.Now(), over(socket)
	defer client.CloseIdleConnections()
	model, err := modelOf(ctx, client, q.Cache)
	if err != nil {
		return Answer{}, err
	}
	body := map[string]any{"model": model, "prompt": q.Prompt, "max_tokens": q.MaxTokens, "temperature": 0,
		"stream": true, "stream_options": map[string]any{"include_usage": true}}
	if q.Others > 0 {
		body["logprobs"] = q.Others
	}
	data, err := json.Marshal(body)
	if err != nil {
		return Answer{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kvq/v1/completions", bytes.NewReader(data))
	if err != nil {
		return Answer{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return Answer{}, goneError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refused part
		if json.NewDecoder(resp.Body).Decode(&refused) != nil || refused.Error == nil {
			return Answer{}, fmt.Errorf("kvq serve answers with status %d", resp.StatusCode)
		}
		return Answer{}, fmt.Errorf("kvq serve: %s", refused.Error.Message)
	}
	return read(resp.Body, start, show)
}

// part is one event of an answer.
type part struct {
	Choices []struct {
		Text     string
		Logprobs *struct {
			Tokens []string
			Log    []float64            `json:"token_logprobs"`
			Others []map[string]float64 `json:"top_logprobs"`
		}
	}
	Usage *Usage
	Error *struct{ Message string }
}

// read takes the events of a stream.
func read(from io.Reader, start time.Time, show func(string)) (a Answer, err error) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if err != nil { // also where it ends before its last event
			return a, goneError(err)
		}
		data, event := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		switch {
		case !event:
			continue
		case data == "[DONE]":
			a.Took = time.Since(start)
			return a, nil
		}
		var p part
		if err := json.Unmarshal([]byte(data), &p); err != nil {
			return a, fmt.Errorf("kvq serve sent what is no event: %w", err)
		}
		if p.Error != nil {
			return a, fmt.Errorf("kvq serve: %s", p.Error.Message)
		}
		if p.Usage != nil {
			a.Usage = *p.Usage
		}
		for _, c := range p.Choices {
			if a.First == 0 {
				a.First = time.Since(start)
			}
			a.Text += c.Text
			show(c.Text)
			if l := c.Logprobs; l != nil {
				for i, text := range l.Tokens {
					a.Tokens = append(a.Tokens, Token{text, l.Log[i], l.Others[i]})
				}
			}
		}
	}
}
