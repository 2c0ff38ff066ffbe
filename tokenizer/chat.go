package tokenizer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvqbook/kvqbook/internal/jinja"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`    // "system", "user" or "assistant"
	Content string `json:"content"` // its text
}

// ChatTemplate is the model's own template in Jinja's language, "" when it has none.
func (t *Tokenizer) ChatTemplate() string { return t.chatTemplate }

// ApplyChatTemplate renders a conversation as the model was trained to read it, special tokens
// included, as transformers' apply_chat_template does with tokenize=False. addGenerationPrompt ends
// it where the assistant's answer begins. A template's own objection, such as roles that do not
// alternate, is an error of bad input.
//
// A template comes with a model, from whoever made the file. Whatever it contains, it comes to an
// end: it may nest 400 calls and expressions, evaluate 3 million nodes, make 32 MiB of values on
// the way and 1 MiB of text, and take 10 seconds; a long conversation raises the bounds of work and
// size in proportion to its length, and ctx ends it earlier. What goes beyond is an error of bad
// input. So is a construct of Jinja2 that is not implemented; it is named. Messages do not quote
// the template.
func (t *Tokenizer) ApplyChatTemplate(ctx context.Context, messages []Message, addGenerationPrompt bool) (string, error) {
	if t.chatTemplate == "" {
		return "", usererr.New("the model has no chat template: give the prompt as plain text")
	}
	if len(messages) == 0 {
		return "", usererr.New("a conversation without messages, want at least one")
	}
	var tokens jinja.Dict
	for _, special := range []struct {
		name string
		id   Token
	}{{"bos_token", t.bos}, {"eos_token", t.eos}, {"pad_token", t.pad}, {"unk_token", t.unknown}} {
		// A token that the model lacks is not defined in the template.
		if piece, known := t.Piece(special.id); known {
			tokens = append(tokens, jinja.Entry{Key: special.name, Value: piece})
		}
	}
	return renderChat(ctx, t.chatTemplate, messages, addGenerationPrompt, tokens, time.Now)
}

// EncodeChat renders a conversation and encodes it. The template has written the special tokens, so
// none are added.
func (t *Tokenizer) EncodeChat(ctx context.Context, messages []Message, addGenerationPrompt bool) ([]Token, error) {
	text, err := t.ApplyChatTemplate(ctx, messages, addGenerationPrompt)
	if err != nil {
		return nil, err
	}
	return t.EncodeWith(text, EncodeOptions{WithoutSpecialTokens: true}), nil
}

// renderChat renders a template with the variables that transformers gives it.
func renderChat(ctx context.Context, source string, messages []Message, addGenerationPrompt bool, tokens jinja.Dict, now func() time.Time) (string, error) {
	size := 0
	list := make([]any, len(messages))
	for i, m := range messages {
		size += len(m.Role) + len(m.Content)
		list[i] = jinja.Dict{{Key: "role", Value: m.Role}, {Key: "content", Value: m.Content}}
	}
	values := append(jinja.Dict{
		{Key: "messages", Value: list}, {Key: "tools", Value: nil}, {Key: "documents", Value: nil},
		{Key: "add_generation_prompt", Value: addGenerationPrompt},
	}, tokens...)
	template, err := jinja.Parse(source)
	if err == nil {
		var text string
		if text, err = template.Render(ctx, values, now, jinja.DefaultLimits(size)); err == nil {
			return text, nil
		}
	}
	if failed := (*jinja.Error)(nil); errors.As(err, &failed) {
		return "", usererr.New("chat template: %w", err)
	}
	return "", fmt.Errorf("chat template: %w", err) // the context's
}
