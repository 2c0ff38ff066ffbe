package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`    // "system", "user" or "assistant"
	Content string `json:"content"` // its text
}

// ChatTemplate is the model's own template in Jinja's language, "" when it has none.
func (t *Tokenizer) ChatTemplate() string { return t.chatTemplate }

// ApplyChatTemplate renders a conversation as the model was trained to read it, special tokens included, as
// transformers' apply_chat_template does with tokenize=False. addGenerationPrompt ends it where the assistant's answer
// begins. A template's own objection, such as roles that do not alternate, is an error of bad input.
func (t *Tokenizer) ApplyChatTemplate(messages []Message, addGenerationPrompt bool) (string, error) {
	if t.chatTemplate == "" {
		return "", usererr.New("the model has no chat template: give the prompt as plain text")
	}
	if len(messages) == 0 {
		return "", usererr.New("a conversation without messages, want at least one")
	}
	name := func(id Token) string {
		piece, _ := t.Piece(id)
		return piece
	}
	return renderChat(t.chatTemplate, messages, addGenerationPrompt, map[string]any{
		"bos_token": name(t.bos), "eos_token": name(t.eos), "pad_token": name(t.pad), "unk_token": name(t.unknown),
	}, time.Now)
}

// EncodeChat renders a conversation and encodes it. The template has written the special tokens, so none are added.
func (t *Tokenizer) EncodeChat(messages []Message, addGenerationPrompt bool) ([]Token, error) {
	text, err := t.ApplyChatTemplate(messages, addGenerationPrompt)
	if err != nil {
		return nil, err
	}
	return t.EncodeWith(text, EncodeOptions{WithoutSpecialTokens: true}), nil
}

// chatObjection is what a template says by raise_exception.
type chatObjection struct{ message string }

func (e *chatObjection) Error() string { return e.message }

// renderChat renders a template with the settings, functions and filters that transformers gives it
// (utils/chat_template_utils.py). The template cannot read files: its loader knows itself alone.
func renderChat(source string, messages []Message, addGenerationPrompt bool, tokens map[string]any, now func() time.Time) (text string, err error) {
	defer func() { // a template comes with a model: whatever it does to the engine must not end the program
		if r := recover(); r != nil {
			text, err = "", usererr.New("chat template: %v", r)
		}
	}()
	settings := config.New()
	settings.TrimBlocks, settings.LeftStripBlocks = true, true
	const name = "/chat"
	loader, err := loaders.NewMemoryLoader(map[string]string{name: source})
	if err != nil {
		return "", err
	}
	// An objection is kept here, because the engine passes on its words but not its type.
	var objection *chatObjection
	globals := exec.EmptyContext().Update(builtins.GlobalFunctions).Update(builtins.GlobalVariables)
	globals.Set("raise_exception", func(_ *exec.Evaluator, arguments *exec.VarArgs) (string, error) {
		words := "no reason given"
		if len(arguments.Args) > 0 {
			words = arguments.Args[0].String()
		}
		objection = &chatObjection{words}
		return "", objection
	})
	globals.Set("strftime_now", func(_ *exec.Evaluator, arguments *exec.VarArgs) (string, error) {
		if len(arguments.Args) != 1 {
			return "", errors.New("strftime_now wants a format")
		}
		return strftime(now(), arguments.Args[0].String()), nil
	})
	filters, err := chatFilters()
	if err != nil {
		return "", err
	}
	template, err := exec.NewTemplate(name, settings, loader, &exec.Environment{
		Context: globals, Filters: filters, Tests: builtins.Tests, ControlStructures: builtins.ControlStructures, Methods: builtins.Methods,
	})
	if err != nil {
		return "", usererr.New("chat template: %w", err)
	}
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	data := exec.NewContext(map[string]any{
		"messages": list, "add_generation_prompt": addGenerationPrompt, "tools": nil, "documents": nil,
	})
	for key, value := range tokens {
		data.Set(key, value)
	}
	text, err = template.ExecuteToString(data)
	switch {
	case objection != nil:
		return "", usererr.New("chat template: %w", objection)
	case err != nil:
		return "", usererr.New("chat template: %w", err)
	}
	return text, nil
}

// chatFilters are Jinja's, with transformers' tojson, which escapes nothing for HTML.
var chatFilters = sync.OnceValues(func() (*exec.FilterSet, error) {
	filters := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	err := filters.Replace("tojson", func(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(in.Interface()); err != nil {
			return exec.AsValue(err)
		}
		return exec.AsSafeValue(strings.TrimSuffix(out.String(), "\n"))
	})
	return filters, err
})

// strftime formats a time by C's conversions, those that templates use; others stay as they are.
func strftime(t time.Time, format string) string {
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'b': "Jan", 'B': "January", 'H': "15", 'M': "04", 'S': "05", 'A': "Monday", 'a': "Mon", 'y': "06",
	}
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		if layout, known := layouts[format[i]]; known {
			out.WriteString(t.Format(layout))
		} else if format[i] == '%' {
			out.WriteByte('%')
		} else {
			fmt.Fprintf(&out, "%%%c", format[i])
		}
	}
	return out.String()
}
