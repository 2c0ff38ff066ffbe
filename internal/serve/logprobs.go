package serve

import (
	"cmp"
	"math"
	"slices"

	"github.com/kvqbook/kvqbook/tokenizer"
)

// scored is a token with its log probability, and those of the most likely tokens at its place.
type scored struct {
	token tokenizer.Token
	log   float64
	top   []scored
}

// score says how likely a token was by the logits [V] that it was picked from, before temperature
// and filters, and which others were the most likely.
func score(logits []float32, token tokenizer.Token, top int) scored {
	best := math.Inf(-1)
	for _, x := range logits {
		best = max(best, float64(x))
	}
	var sum float64
	for _, x := range logits {
		sum += math.Exp(float64(x) - best)
	}
	norm := best + math.Log(sum)
	s := scored{token: token, log: float64(logits[token]) - norm}
	if top == 0 {
		return s
	}
	ids := make([]tokenizer.Token, 0, top+1)
	order := func(a, b tokenizer.Token) int { return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b)) }
	for id := range logits {
		if len(ids) == top && logits[id] <= logits[ids[top-1]] {
			continue
		}
		at, _ := slices.BinarySearchFunc(ids, tokenizer.Token(id), order)
		if ids = slices.Insert(ids, at, tokenizer.Token(id)); len(ids) > top {
			ids = ids[:top]
		}
	}
	for _, id := range ids {
		s.top = append(s.top, scored{token: id, log: float64(logits[id]) - norm})
	}
	return s
}

// finite is a log probability for JSON, which has no infinity.
func (s scored) finite() float64 { return max(s.log, -9999) }

// chatLogprob is a token as /v1/chat/completions has it.
type chatLogprob struct {
	Token   string        `json:"token"`
	Logprob float64       `json:"logprob"`
	Bytes   []int         `json:"bytes"`
	Top     []chatLogprob `json:"top_logprobs,omitempty"`
}

func (s scored) chat(tok *tokenizer.Tokenizer) chatLogprob {
	text := tok.Decode([]tokenizer.Token{s.token}, false)
	out := chatLogprob{Token: text, Logprob: s.finite(), Bytes: []int{}}
	for _, b := range []byte(text) {
		out.Bytes = append(out.Bytes, int(b))
	}
	for _, other := range s.top {
		out.Top = append(out.Top, other.chat(tok))
	}
	return out
}

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
}

// textLogprobs are those of /v1/completions.
type textLogprobs struct {
	Tokens []string             `json:"tokens"`
	Logs   []float64            `json:"token_logprobs"`
	Top    []map[string]float64 `json:"top_logprobs"`
	Offset []int                `json:"text_offset"`
}

// logprobsOf are the log probabilities of tokens in the form of an endpoint; nil for none. offset
// is the length of the text before them.
func logprobsOf(tok *tokenizer.Tokenizer, list []scored, chat bool, offset int) any {
	if list == nil {
		return nil
	}
	if chat {
		out := chatLogprobs{Content: []chatLogprob{}}
		for _, s := range list {
			out.Content = append(out.Content, s.chat(tok))
		}
		return out
	}
	var out textLogprobs
	for _, s := range list {
		text := tok.Decode([]tokenizer.Token{s.token}, false)
		out.Tokens, out.Logs, out.Offset = append(out.Tokens, text), append(out.Logs, s.finite()), append(out.Offset, offset)
		offset += len([]rune(text))
		top := map[string]float64{}
		for _, other := range s.top {
			top[tok.Decode([]tokenizer.Token{other.token}, false)] = other.finite()
		}
		out.Top = append(out.Top, top)
	}
	return out
}
