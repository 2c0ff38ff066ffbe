package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// request is the body of both kinds of completion. Pointers tell what was left out.
type request struct {
	Model               string          `json:"model"`
	Prompt              json.RawMessage `json:"prompt"`
	Messages            []chatMessage   `json:"messages"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	Seed                *int64          `json:"seed"`
	Stop                json.RawMessage `json:"stop"`
	Stream              bool            `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Logprobs    json.RawMessage `json:"logprobs"` // a number of a completion, a bool of a chat
	TopLogprobs int             `json:"top_logprobs"`

	// What other servers know beyond OpenAI's API.
	TopK              int     `json:"top_k"`
	MinP              float64 `json:"min_p"`
	RepetitionPenalty float64 `json:"repetition_penalty"`

	// What clients send without being asked, or with the value that changes nothing.
	User             json.RawMessage `json:"user"`
	Store            json.RawMessage `json:"store"`
	Metadata         json.RawMessage `json:"metadata"`
	ServiceTier      json.RawMessage `json:"service_tier"`
	N                *int            `json:"n"`
	BestOf           *int            `json:"best_of"`
	Echo             bool            `json:"echo"`
	FrequencyPenalty float64         `json:"frequency_penalty"`
	PresencePenalty  float64         `json:"presence_penalty"`
	ResponseFormat   *struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

type chatMessage struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
	Name    json.RawMessage `json:"name"` // is not told to the model
}

const (
	maxStops       = 16
	maxTopLogprobs = 20
	maxPrompts     = 64
	maxTemperature = 100.0
	maxPenalty     = 100.0
	defaultTokens  = 16 // of a completion, as in OpenAI's API

	readTimeout = time.Minute // for a body
)

// parseRequest reads a body of at most limit bytes.
func parseRequest(w http.ResponseWriter, r *http.Request, limit int64) (*request, error) {
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Now().Add(readTimeout)) // where the connection has deadlines
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = out.SetReadDeadline(time.Time{}) // from here on, a read that fails is a client that has gone
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, invalidRequest, "", "", "a request of more than %d bytes", limit)
	} else if err != nil {
		return nil, badRequest("", "reading the request: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	q := &request{}
	if err := d.Decode(q); err != nil {
		return nil, badRequest(fieldOf(err), "want a JSON object with fields of this endpoint: %s", jsonProblem(err))
	}
	if d.More() {
		return nil, badRequest("", "want one JSON object, got more")
	}
	return q, nil
}

// jsonProblem says what is wrong with a body, in words of JSON.
func jsonProblem(err error) string {
	switch err {
	case io.EOF:
		return "got nothing"
	case io.ErrUnexpectedEOF:
		return "it ends too soon"
	}
	return usererr.JSONMessage(err)
}

// fieldOf is the field that an error of encoding/json is about, "" where it is the whole.
func fieldOf(err error) string {
	if t, ok := err.(*json.UnmarshalTypeError); ok {
		return t.Field
	}
	if name, ok := strings.CutPrefix(usererr.JSONMessage(err), "unknown field "); ok {
		return strings.Trim(name, `"`)
	}
	return ""
}

// check refuses what this server does not do, instead of doing something else.
func (q *request) check() error {
	one := func(n *int) bool { return n == nil || *n == 1 }
	switch {
	case !one(q.N):
		return badRequest("n", "want n of 1, got %d: send several prompts or requests", *q.N)
	case !one(q.BestOf):
		return badRequest("best_of", "want best_of of 1, got %d", *q.BestOf)
	case q.Echo:
		return badRequest("echo", "echo is not offered")
	case q.FrequencyPenalty != 0:
		return badRequest("frequency_penalty", "frequency_penalty is not offered: take repetition_penalty")
	case q.PresencePenalty != 0:
		return badRequest("presence_penalty", "presence_penalty is not offered: take repetition_penalty")
	case q.ResponseFormat != nil && q.ResponseFormat.Type != "text":
		return badRequest("response_format", "response_format %q is not offered, want text", q.ResponseFormat.Type)
	}
	return nil
}

// settings are the request's, for a prompt of so many tokens in a row of at most context.
func (q *request) settings(tok *tokenizer.Tokenizer, chat bool) (gc llama.GenerateConfig, top int, err error) {
	gc.Tokenizer = tok
	if gc.StopStrings, err = oneOrMore("stop", q.Stop, maxStops); err != nil {
		return gc, 0, err
	}
	if slices.Contains(gc.StopStrings, "") {
		return gc, 0, badRequest("stop", "want stop strings of some text, got an empty one")
	}
	temperature, topP := 1.0, 1.0
	if q.Temperature != nil {
		temperature = *q.Temperature
	}
	if q.TopP != nil {
		topP = *q.TopP
	}
	switch {
	case !(temperature >= 0 && temperature <= maxTemperature):
		return gc, 0, badRequest("temperature", "want a temperature of 0 (the most likely token) to %g, got %g", maxTemperature, temperature)
	case !(topP > 0 && topP <= 1):
		return gc, 0, badRequest("top_p", "want top_p above 0 and at most 1, got %g", topP)
	case q.TopK < 0:
		return gc, 0, badRequest("top_k", "want top_k of 0 (no limit) or more, got %d", q.TopK)
	case !(q.MinP >= 0 && q.MinP <= 1):
		return gc, 0, badRequest("min_p", "want min_p of 0 (no limit) to 1, got %g", q.MinP)
	case !(q.RepetitionPenalty >= 0 && q.RepetitionPenalty <= maxPenalty):
		return gc, 0, badRequest("repetition_penalty", "want repetition_penalty above 0 and at most %g (1 for none), got %g", maxPenalty, q.RepetitionPenalty)
	}
	if gc.DoSample = temperature > 0; gc.DoSample {
		gc.Temperature, gc.TopP, gc.TopK, gc.MinP = temperature, topP, q.TopK, q.MinP
		gc.Seed = rand.Int64()
		if q.Seed != nil {
			gc.Seed = *q.Seed
		}
	}
	gc.RepetitionPenalty = q.RepetitionPenalty
	gc.KeepLogits, top, err = q.logprobs(chat)
	return gc, top, err
}

// logprobs says whether the tokens' log probabilities are wanted, and those of how many others.
func (q *request) logprobs(chat bool) (wanted bool, top int, err error) {
	if isNull(q.Logprobs) {
		if q.TopLogprobs != 0 {
			return false, 0, badRequest("top_logprobs", "top_logprobs wants logprobs")
		}
		return false, 0, nil
	}
	if chat {
		if json.Unmarshal(q.Logprobs, &wanted) != nil {
			return false, 0, badRequest("logprobs", "want logprobs of true or false, got %.100s", q.Logprobs)
		}
		if top = q.TopLogprobs; top != 0 && !wanted {
			return false, 0, badRequest("top_logprobs", "top_logprobs wants logprobs of true")
		}
	} else {
		wanted = true
		if json.Unmarshal(q.Logprobs, &top) != nil {
			return false, 0, badRequest("logprobs", "want a number of logprobs, got %.100s", q.Logprobs)
		}
	}
	if top < 0 || top > maxTopLogprobs {
		return false, 0, badRequest("logprobs", "want logprobs of 0 to %d others, got %d", maxTopLogprobs, top)
	}
	return wanted, top, nil
}

// limit is how many new tokens are wanted at most.
func (q *request) limit(chat bool) (int, error) {
	n := q.MaxTokens
	if q.MaxCompletionTokens != nil {
		n = q.MaxCompletionTokens
	}
	switch {
	case n == nil && chat:
		return 1 << 30, nil // what the context has room for
	case n == nil:
		return defaultTokens, nil
	case *n < 1:
		return 0, badRequest("max_tokens", "want max_tokens of at least 1, got %d", *n)
	}
	return *n, nil
}

// prompts are the texts of a completion, as tokens.
func (q *request) prompts(tok *tokenizer.Tokenizer) (list [][]tokenizer.Token, err error) {
	if len(q.Messages) > 0 {
		return nil, badRequest("messages", "messages are for /v1/chat/completions, want prompt")
	}
	texts, err := oneOrMore("prompt", q.Prompt, maxPrompts)
	if err != nil {
		return nil, err
	}
	if len(texts) == 0 {
		return nil, badRequest("prompt", "want a prompt: a text, or a list of texts")
	}
	for _, text := range texts {
		list = append(list, tok.Encode(text))
	}
	return list, nil
}

// conversation is a chat as tokens.
func (q *request) conversation(ctx context.Context, tok *tokenizer.Tokenizer) ([]tokenizer.Token, error) {
	if !isNull(q.Prompt) {
		return nil, badRequest("prompt", "prompt is for /v1/completions, want messages")
	}
	var list []tokenizer.Message
	for i, m := range q.Messages {
		switch m.Role {
		case "system", "user", "assistant":
		case "developer": // the newer name of the same
			m.Role = "system"
		default:
			return nil, badRequest("messages", "message %d: want a role of system, user or assistant, got %.100q", i, m.Role)
		}
		text, err := m.text()
		if err != nil {
			return nil, badRequest("messages", "message %d: %v", i, err)
		}
		list = append(list, tokenizer.Message{Role: m.Role, Content: text})
	}
	ids, err := tok.EncodeChat(ctx, list, true)
	if usererr.Is(err) {
		return nil, badRequest("messages", "%v", err)
	}
	return ids, err
}

// text is a message's content: a text, or parts that are texts.
func (m chatMessage) text() (string, error) {
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return "", errors.New("want a text as content, or a list of parts")
	}
	for _, part := range parts {
		if part.Type != "text" {
			return "", errors.New("want parts of type text alone")
		}
		text += part.Text
	}
	return text, nil
}

// oneOrMore is a field that is a text or a list of at most so many; absent or null is none.
func oneOrMore(field string, raw json.RawMessage, most int) ([]string, error) {
	if isNull(raw) {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return nil, badRequest(field, "want %s to be a text or a list of texts", field)
	}
	if len(list) > most {
		return nil, badRequest(field, "want at most %d of %s, got %d", most, field, len(list))
	}
	return list, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
