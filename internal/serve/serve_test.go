package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/fakemodel"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

const (
	vocabulary = 200
	token      = "a token that nobody guesses"
	template   = "{% for m in messages %}{{ m['role'] == 'user' and '" + "\u4e07" + "' or '" + "\u4e08" + "' }}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}" + "\u4e08" + "{% endif %}"
)

// text is the text of ids.
func text(ids ...int) (s string) {
	for _, id := range ids {
		s += fakemodel.Character(id)
	}
	return s
}

// some are n ids that depend on seed.
func some(seed, n int) string {
	var ids []int
	for i := range n {
		ids = append(ids, 10+(seed*71+i*37+i*i%11)%180)
	}
	return text(ids...)
}

// tiny is a made-up model with a tokenizer of a character for each id, and no end of sequence.
type tiny struct {
	t   *testing.T
	g   *llama.Generator
	tok *tokenizer.Tokenizer
}

func newTiny(t *testing.T, cache kvq.Config) *tiny {
	t.Helper()
	config := fakemodel.With(fakemodel.Config(), map[string]any{
		"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
		"max_position_embeddings": 256, "eos_token_id": fakemodel.Absent,
	})
	c, err := modelfile.ParseConfig(fakemodel.JSON(t, config), nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []fakemodel.Tensor
	for _, w := range c.Weights() {
		list = append(list, fakemodel.Tensor{Name: w.HF, Dims: w.Dims})
	}
	dir := fakemodel.Folder(t, config, fakemodel.Random(dtypes.Float32, list))
	fakemodel.CharacterTokenizer(t, dir, vocabulary, template)
	files, err := llama.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	x := &tiny{t: t}
	if x.tok, err = files.Tokenizer(); err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(testbackend.XLA(t), llama.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Finalize)
	if x.g, err = llama.NewGenerator(m, cache); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.g.Finalize)
	return x
}

// alone is what the generator makes of a text alone.
func (x *tiny) alone(prompt string, gc llama.GenerateConfig) string {
	x.t.Helper()
	r, err := x.g.Generate(context.Background(), tokenizer.Batch{IDs: [][]tokenizer.Token{x.tok.Encode(prompt)}}, gc)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.tok.Decode(r.Tokens[0], true)
}

// served is a server under test.
type served struct {
	t      *testing.T
	s      *Server
	url    string
	client *http.Client
	mu     sync.Mutex
	log    bytes.Buffer
}

func (x *tiny) serve(change func(*Options)) *served {
	x.t.Helper()
	v := &served{t: x.t, client: &http.Client{Timeout: 2 * time.Minute}}
	o := Options{
		Generator: x.g, Tokenizer: x.tok, Model: "tiny", Rows: 2, Queue: 30, Context: 200, BodyBytes: 1 << 16, Token: token,
		Log: func(format string, args ...any) {
			v.mu.Lock()
			defer v.mu.Unlock()
			fmt.Fprintf(&v.log, format+"\n", args...)
		},
	}
	if change != nil {
		change(&o)
	}
	var err error
	if v.s, err = New(o); err != nil {
		x.t.Fatal(err)
	}
	server := httptest.NewServer(v.s)
	v.url = server.URL
	x.t.Cleanup(func() { server.Close(); v.s.Close() })
	return v
}

// send makes a request with the token.
func (v *served) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, v.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return v.client.Do(r)
}

// reply is what an answer holds, of either endpoint.
type reply struct {
	ID, Object, Model string
	Choices           []struct {
		Index    int
		Text     string
		Message  struct{ Role, Content string }
		Delta    struct{ Role, Content string }
		Finish   *string `json:"finish_reason"`
		Logprobs *struct {
			Tokens  []string
			Logs    []float64            `json:"token_logprobs"`
			Top     []map[string]float64 `json:"top_logprobs"`
			Offset  []int                `json:"text_offset"`
			Content []struct {
				Token   string
				Logprob float64
				Top     []struct{ Token string } `json:"top_logprobs"`
			}
		}
	}
	Usage *usage
	Error *errorBody
}

// ask posts a request, and returns the status with the answer.
func (v *served) ask(path string, body map[string]any) (int, reply) {
	v.t.Helper()
	resp, err := v.send(context.Background(), http.MethodPost, path, string(fakemodel.JSON(v.t, body)))
	if err != nil {
		v.t.Error(err)
		return 0, reply{}
	}
	defer resp.Body.Close()
	var r reply
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		v.t.Error(err)
	}
	return resp.StatusCode, r
}

// must is ask for an answer with at least one choice.
func (v *served) must(path string, body map[string]any) reply {
	v.t.Helper()
	status, r := v.ask(path, body)
	if status != http.StatusOK || len(r.Choices) == 0 {
		v.t.Fatalf("%s %v: status %d, %+v", path, body, status, r.Error)
	}
	return r
}

// events posts a request for a stream and returns what each event says, but for the last.
func (v *served) events(path string, body map[string]any) (list []reply) {
	v.t.Helper()
	body = maps.Clone(body)
	body["stream"] = true
	resp, err := v.send(context.Background(), http.MethodPost, path, string(fakemodel.JSON(v.t, body)))
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		v.t.Fatalf("%s, status %d", got, resp.StatusCode)
	}
	lines := bufio.NewScanner(resp.Body)
	done := false
	for lines.Scan() {
		data, event := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case lines.Text() == "":
		case !event || done:
			v.t.Errorf("a line %q in a stream", lines.Text())
		case data == "[DONE]":
			done = true
		default:
			var r reply
			if err := json.Unmarshal([]byte(data), &r); err != nil {
				v.t.Fatal(err)
			}
			list = append(list, r)
		}
	}
	if !done {
		v.t.Errorf("a stream without its end: %v", lines.Err())
	}
	return list
}

func finishOf(f *string) string {
	if f == nil {
		return "null"
	}
	return *f
}

const (
	texts = "/v1/completions"
	chats = "/v1/chat/completions"
)

// greedy is a request for the most likely tokens.
func greedy(prompt any, n int) map[string]any {
	return map[string]any{"model": "tiny", "prompt": prompt, "max_tokens": n, "temperature": 0}
}

// A greedy answer is the lone generation's, whole and in events; a chat is its template's text;
// stop strings, log probabilities, seeds and usage are what they say.
func TestAnswers(t *testing.T) {
	testlane.OnlyAll(t, "compiles a made-up model; TestRefusals goes as far as a row")
	x := newTiny(t, kvq.Config{})
	v := x.serve(nil)
	prompt := some(1, 20)
	want := x.alone(prompt, llama.GenerateConfig{MaxNewTokens: 24})
	r := v.must(texts, greedy(prompt, 24))
	if c := r.Choices[0]; c.Text != want || finishOf(c.Finish) != "length" || r.Object != "text_completion" || r.Model != "tiny" {
		t.Errorf("%+v, want the text %q", r, want)
	}
	if u := r.Usage; u == nil || u.Prompt != 20 || u.Completion != 24 || u.Total != 44 || u.CacheTokens != 43 || u.CacheBytes == 0 || u.CacheBytes != u.FullBytes || u.CodedTokens != 0 {
		t.Errorf("usage %+v", u)
	}

	var streamed strings.Builder
	body := greedy(prompt, 24)
	body["stream_options"] = map[string]any{"include_usage": true}
	list := v.events(texts, body)
	for i, e := range list[:len(list)-1] {
		streamed.WriteString(e.Choices[0].Text)
		if last := i == len(list)-2; (finishOf(e.Choices[0].Finish) == "length") != last {
			t.Errorf("event %d of %d finishes with %s", i, len(list), finishOf(e.Choices[0].Finish))
		}
	}
	if u := list[len(list)-1].Usage; streamed.String() != want || u == nil || u.Completion != 24 || u.Details.Cached != 19 {
		t.Errorf("streamed %q with usage %+v, want %q and 19 tokens cached", streamed.String(), u, want)
	}

	// A chat, and what goes on from it: its beginning is kept.
	messages := []map[string]any{{"role": "system", "content": some(2, 12)}, {"role": "user", "content": some(3, 9)}}
	written := "\u4e08" + some(2, 12) + "\u4e07" + some(3, 9) + "\u4e08"
	chat := map[string]any{"messages": messages, "max_completion_tokens": 10, "temperature": 0}
	r = v.must(chats, chat)
	said := x.alone(written, llama.GenerateConfig{MaxNewTokens: 10})
	if c := r.Choices[0]; c.Message.Content != said || c.Message.Role != "assistant" || r.Object != "chat.completion" {
		t.Errorf("%+v, want %q", r, said)
	}
	chat["messages"] = append(messages, map[string]any{"role": "assistant", "content": said},
		map[string]any{"role": "user", "content": []map[string]any{{"type": "text", "text": some(4, 5)}}})
	written += said + "\u4e07" + some(4, 5) + "\u4e08"
	want = x.alone(written, llama.GenerateConfig{MaxNewTokens: 10})
	streamed.Reset()
	for i, e := range v.events(chats, chat) {
		streamed.WriteString(e.Choices[0].Delta.Content)
		if (e.Choices[0].Delta.Role == "assistant") != (i == 0) || e.Object != "chat.completion.chunk" {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if streamed.String() != want {
		t.Errorf("the chat goes on with %q, want %q", streamed.String(), want)
	}
	if u := v.must(chats, chat).Usage; u.Details.Cached < 40 {
		t.Errorf("usage %+v, want most of the conversation cached", u)
	}

	// Stop strings, whole and in events.
	long := x.alone(prompt, llama.GenerateConfig{MaxNewTokens: 40})
	stop := string([]rune(long)[13:15])
	begin := long[:strings.Index(long, stop)]
	body = greedy(prompt, 40)
	body["stop"] = []string{"never", stop}
	if c := v.must(texts, body).Choices[0]; c.Text != begin || finishOf(c.Finish) != "stop" {
		t.Errorf("stop at %q: %q (%s), want %q", stop, c.Text, finishOf(c.Finish), begin)
	}
	streamed.Reset()
	for _, e := range v.events(texts, body) {
		streamed.WriteString(e.Choices[0].Text)
	}
	if streamed.String() != begin {
		t.Errorf("streamed to stop %q: %q, want %q", stop, streamed.String(), begin)
	}

	// Several prompts at once.
	r = v.must(texts, greedy([]string{some(5, 7), some(6, 30), some(7, 3)}, 6))
	for i, p := range []string{some(5, 7), some(6, 30), some(7, 3)} {
		if want := x.alone(p, llama.GenerateConfig{MaxNewTokens: 6}); r.Choices[i].Text != want || r.Choices[i].Index != i {
			t.Errorf("prompt %d of three: %q, want %q", i, r.Choices[i].Text, want)
		}
	}

	// The same seed gives the same text, which is the generator's.
	body = map[string]any{"prompt": prompt, "max_tokens": 20, "temperature": 0.9, "top_p": 0.8, "seed": 7}
	want = x.alone(prompt, llama.GenerateConfig{MaxNewTokens: 20, DoSample: true, Temperature: 0.9, TopP: 0.8, Seed: 7})
	for range 2 {
		if got := v.must(texts, body).Choices[0].Text; got != want {
			t.Errorf("seed 7: %q, want %q", got, want)
		}
	}

	// Log probabilities: the greedy token is the most likely one, and all of the text is there.
	body = greedy(prompt, 9)
	body["logprobs"] = 3
	c := v.must(texts, body).Choices[0]
	for i, name := range c.Logprobs.Tokens {
		top := c.Logprobs.Top[i]
		for other, log := range top {
			if log > c.Logprobs.Logs[i] || other == name && log != c.Logprobs.Logs[i] {
				t.Errorf("token %d: %q has %g, %q %g", i, name, c.Logprobs.Logs[i], other, log)
			}
		}
		if _, there := top[name]; len(top) != 3 || !there || c.Logprobs.Offset[i] != i {
			t.Errorf("token %d: %v at %d", i, top, c.Logprobs.Offset[i])
		}
	}
	if got := strings.Join(c.Logprobs.Tokens, ""); got != c.Text || len(c.Logprobs.Logs) != 9 {
		t.Errorf("log probabilities of %q for the text %q", got, c.Text)
	}
	chat["logprobs"], chat["top_logprobs"] = true, 2
	if c := v.must(chats, chat).Choices[0]; len(c.Logprobs.Content) != 10 || len(c.Logprobs.Content[9].Top) != 2 || c.Logprobs.Content[0].Top[0].Token != c.Logprobs.Content[0].Token {
		t.Errorf("log probabilities of a chat: %+v", c.Logprobs)
	}

	// An answer that fills the context ends there.
	r = v.must(texts, greedy(some(8, 190), 100))
	if r.Usage.Completion != 11 || finishOf(r.Choices[0].Finish) != "length" {
		t.Errorf("at the context's end: %+v", r.Usage)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if log := v.log.String(); strings.Contains(log, token) || strings.Contains(log, prompt) || !strings.Contains(log, `POST "/v1/completions" 200`) {
		t.Errorf("the log has a token or a text, or lacks a request: %.300s", log)
	}
}

// Twenty clients at once all get what each gets alone, over two rows; so do those who come while
// others go away, whose rows are free then.
func TestManyClients(t *testing.T) {
	testlane.OnlyAll(t, "compiles a made-up model and waits for clients")
	x := newTiny(t, kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 8, ResidualLength: 8})
	v := x.serve(func(o *Options) { o.Queue = 40 })
	const clients = 20
	var want []string
	for i := range clients {
		want = append(want, x.alone(some(i, 5+i), llama.GenerateConfig{MaxNewTokens: 12 + i}))
	}
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			if got := v.must(texts, greedy(some(i, 5+i), 12+i)); got.Choices[0].Text != want[i] {
				t.Errorf("client %d: %q, alone %q", i, got.Choices[0].Text, want[i])
			}
		})
		all.Go(func() { // somebody who goes away
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(10+20*i)*time.Millisecond)
			defer cancel()
			body := greedy(some(100+i, 9), 150)
			body["stream"] = i%2 == 0
			if resp, err := v.send(ctx, http.MethodPost, texts, string(fakemodel.JSON(t, body))); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	all.Wait()
	// Nothing is left under way: the places are free.
	for start := time.Now(); len(v.s.places) > 0; time.Sleep(time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			t.Fatalf("%d requests are still under way", len(v.s.places))
		}
	}
	if got := v.must(texts, greedy(some(3, 8), 15)).Choices[0].Text; got != want[3] {
		t.Errorf("afterwards %q, want %q", got, want[3])
	}
	// The prompt of some client before, and a word more: read from where it ends.
	u := v.must(texts, greedy(some(3, 8)+want[3]+some(9, 2), 2)).Usage
	if u.Details.Cached == 0 || u.CodedTokens == 0 || u.CacheBytes == 0 || u.CodedTokens > u.CacheTokens {
		t.Errorf("usage %+v, want kept tokens and codes", u)
	}
}

// A client that goes away frees its row at once, and a server that ends tells who waits.
func TestGoneAndEnding(t *testing.T) {
	testlane.OnlyAll(t, "compiles a made-up model")
	x := newTiny(t, kvq.Config{})
	v := x.serve(func(o *Options) { o.Rows, o.Queue = 1, 3 })
	if err := v.s.Warm(context.Background()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	body := greedy(some(1, 9), 180)
	body["stream"] = true
	resp, err := v.send(ctx, http.MethodPost, texts, string(fakemodel.JSON(t, body)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	start := time.Now()
	v.must(texts, greedy(some(2, 9), 3))
	t.Logf("the next client waited %v", time.Since(start))
	resp.Body.Close()

	// The queue is bounded. Jobs go in by hand, so that nothing ends before.
	v.s.lines[0].engine.close()
	for range 4 {
		v.s.places <- struct{}{}
	}
	if status, r := v.ask(texts, greedy("x", 1)); status != http.StatusTooManyRequests || *r.Error.Code != "queue_full" {
		t.Errorf("a full queue: %d, %+v", status, r.Error)
	}
	for range 4 {
		<-v.s.places
	}
	if status, r := v.ask(texts, greedy(some(1, 3), 1)); status != http.StatusServiceUnavailable || !strings.Contains(r.Error.Message, "ending") {
		t.Errorf("a server that ends: %d, %+v", status, r.Error)
	}
}

// What cannot be answered is an error in OpenAI's form, before any token is made.
func TestRefusals(t *testing.T) {
	x := newTiny(t, kvq.Config{})
	v := x.serve(func(o *Options) { o.BodyBytes = 4000 })
	with := func(more ...any) map[string]any {
		body := greedy("\u4e20", 5)
		for i := 0; i < len(more); i += 2 {
			body[more[i].(string)] = more[i+1]
		}
		return body
	}
	for _, c := range []struct {
		path    string
		body    map[string]any
		status  int
		param   string
		message string
	}{
		{texts, with("model", "gpt-4"), 404, "model", `the model here is "tiny", got "gpt-4"`},
		{texts, with("prompt", nil), 400, "prompt", "want a prompt"},
		{texts, with("prompt", 5), 400, "prompt", "a text or a list of texts"},
		{texts, with("prompt", ""), 400, "prompt", "want at least one token"},
		{texts, with("prompt", some(1, 201)), 400, "prompt", "the text has 201 tokens, the context is 200"},
		{texts, with("max_tokens", 0), 400, "max_tokens", "want max_tokens of at least 1, got 0"},
		{texts, with("temperature", -1), 400, "temperature", "got -1"},
		{texts, with("top_p", 0), 400, "top_p", "above 0 and at most 1"},
		{texts, with("n", 2), 400, "n", "want n of 1, got 2"},
		{texts, with("max_tokens", 1.5), 400, "max_tokens", "came 1.5, want a whole number"},
		{texts, with("stream", "yes"), 400, "stream", "came a text, want true or false"},
		{texts, with("temperature", 101), 400, "temperature", "0 (the most likely token) to 100"},
		{texts, with("repetition_penalty", 1e9), 400, "repetition_penalty", "at most 100"},
		{texts, with("echo", true), 400, "echo", "echo is not offered"},
		{texts, with("frequency_penalty", 0.5), 400, "frequency_penalty", "repetition_penalty"},
		{texts, with("stop", ""), 400, "stop", "an empty one"},
		{texts, with("stop", slices.Repeat([]string{"x"}, 17)), 400, "stop", "at most 16"},
		{texts, with("logprobs", 21), 400, "logprobs", "0 to 20"},
		{texts, with("logprobs", true), 400, "logprobs", "a number"},
		{texts, with("tools", []string{}), 400, "tools", `unknown field "tools"`},
		{texts, with("messages", []any{map[string]any{"role": "user", "content": "x"}}), 400, "messages", "/v1/chat/completions"},
		{texts, with("prompt", some(1, 2000)), 413, "", "more than 4000 bytes"},
		{chats, map[string]any{"messages": []any{}}, 400, "messages", "at least one"},
		{chats, map[string]any{"messages": []any{map[string]any{"role": "tool", "content": "x"}}}, 400, "messages", "message 0: want a role"},
		{chats, map[string]any{"messages": []any{map[string]any{"role": "user", "content": []any{map[string]any{"type": "image_url"}}}}}, 400, "messages", "parts of type text"},
		{chats, map[string]any{"messages": []any{map[string]any{"role": "user", "content": "x"}}, "top_logprobs": 2}, 400, "top_logprobs", "wants logprobs"},
		{"/v1/embeddings", map[string]any{}, 404, "", "no such endpoint"},
	} {
		status, r := v.ask(c.path, c.body)
		if status != c.status || r.Error == nil || !strings.Contains(r.Error.Message, c.message) || r.Error.Type == "" {
			t.Errorf("%s %.100v: %d, %+v; want %d with %q", c.path, c.body, status, r.Error, c.status, c.message)
			continue
		}
		if got := r.Error.Param; (got == nil) != (c.param == "") || got != nil && *got != c.param {
			t.Errorf("%.100v: param %v, want %q", c.body, got, c.param)
		}
	}
	for body, want := range map[string]string{
		"": "got nothing", "{": "it ends too soon", `{"prompt": "x"} {}`: "got more", `[]`: "came a list, want an object",
		`{"prompt": "x", "max_tokens": "many"}`: `field \"max_tokens\": came a text, want a whole number`,
	} {
		resp, err := v.send(context.Background(), http.MethodPost, texts, body)
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); resp.StatusCode != 400 || err != nil || !strings.Contains(string(said), want) {
			t.Errorf("body %q: status %d, %s, %v; want %q", body, resp.StatusCode, said, err, want)
		}
	}
	resp, err := v.send(context.Background(), http.MethodGet, chats, "")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: status %d, allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
	for _, header := range []string{"", "Bearer", "Bearer wrong", token, "Basic " + token} {
		r, _ := http.NewRequest(http.MethodGet, v.url+"/v1/models", nil)
		r.Header.Set("Authorization", header)
		resp, err := v.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var refused reply
		err = json.NewDecoder(resp.Body).Decode(&refused)
		if resp.Body.Close(); resp.StatusCode != 401 || err != nil || refused.Error == nil || *refused.Error.Code != "invalid_api_key" {
			t.Errorf("%q: status %d, %v, %+v", header, resp.StatusCode, err, refused.Error)
		}
	}
	resp, err = v.send(context.Background(), http.MethodGet, "/v1/models", "")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var models struct{ Data []struct{ ID, Object string } }
	if err := json.NewDecoder(resp.Body).Decode(&models); err != nil || len(models.Data) != 1 || models.Data[0].ID != "tiny" || models.Data[0].Object != "model" {
		t.Errorf("models %+v, %v", models, err)
	}
}

// By hand: of logits 0, log 2 and log 5, the whole is 8; the log probabilities are those of 1/8,
// 2/8 and 5/8, and of equal ones the lower id comes first.
func TestScoreByHand(t *testing.T) {
	logits := []float32{0, float32(math.Log(2)), float32(math.Log(5)), float32(math.Inf(-1))}
	s := score(logits, 1, 2)
	near := func(got, want float64) bool { return math.Abs(got-math.Log(want)) < 1e-6 }
	if !near(s.log, 2.0/8) || len(s.top) != 2 || s.top[0].token != 2 || !near(s.top[0].log, 5.0/8) || s.top[1].token != 1 {
		t.Errorf("%+v", s)
	}
	if s := score([]float32{1, 3, 3, 2, 3}, 0, 3); s.top[0].token != 1 || s.top[1].token != 2 || s.top[2].token != 4 {
		t.Errorf("equals come as %+v", s.top)
	}
	if got := score(logits, 3, 0).finite(); got != -9999 {
		t.Errorf("a token without any probability has %g", got)
	}
}

// A socket is its owner's alone, one that was left behind is replaced, and what somebody uses is
// not.
func TestListenSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "kvq.sock")
	first, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	info := stat(t, path)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %#o, want 0600", info.Mode().Perm())
	}
	go func() { _ = http.Serve(first, http.NotFoundHandler()) }()
	if _, err := ListenSocket(path); err == nil || !strings.Contains(err.Error(), "another process serves there") {
		t.Errorf("a socket in use: %v", err)
	}
	leave(t, first) // as a process that was killed does
	second, err := ListenSocket(path)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if names := entries(t, dir); len(names) != 0 {
		t.Errorf("%q left in the folder", names)
	}
	file := fakemodel.WriteFile(t, []byte("mine"), dir, "file")
	if _, err := ListenSocket(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestListenLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":8080", "192.168.1.1:80", "example.com:80", "127.0.0.1", "[::]:0"} {
		if l, err := ListenLoopback(address); err == nil {
			t.Errorf("%s: listens at %s", address, l.Addr())
			l.Close()
		}
	}
	l, err := ListenLoopback("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// A token is made once, in a file that its owner alone may read.
func TestTokenFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	made, err := TokenFile(path)
	if err != nil || len(made) != 64 || stat(t, path).Mode().Perm() != 0o600 {
		t.Fatalf("%d characters in mode %v, %v", len(made), stat(t, path).Mode(), err)
	}
	if again, err := TokenFile(path); err != nil || again != made {
		t.Errorf("the second time another token, %v", err)
	}
	chmod(t, path, 0o644)
	if _, err := TokenFile(path); err == nil || !strings.Contains(err.Error(), "others may read it") || strings.Contains(err.Error(), made) {
		t.Errorf("open to others: %v", err)
	}
	for _, bad := range []string{"", "short", "a long line with blanks in it"} {
		if _, err := TokenFile(fakemodel.WriteFile(t, []byte(bad), dir, "bad")); err == nil {
			t.Errorf("%q is taken for a token", bad)
		}
	}
}
