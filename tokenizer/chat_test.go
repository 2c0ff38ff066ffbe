package tokenizer

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvqbook/kvqbook/internal/jinja"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// chatCase is a conversation and what Jinja2 makes of it with transformers' settings; made by
// scripts/compare-tokenizers. result is a text, or an object with what the template objects to.
type chatCase struct {
	Template            string
	Messages            []Message
	AddGenerationPrompt bool `json:"add_generation_prompt"`
	Result              json.RawMessage
}

func template(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "chat", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func july(*testing.T) func() time.Time {
	return func() time.Time { return time.Date(2024, time.July, 26, 12, 0, 0, 0, time.UTC) }
}

// The templates of the model families, by hand: what transformers gives (trim_blocks and
// lstrip_blocks on).
func TestChatTemplateByHand(t *testing.T) {
	user := []Message{{"user", "Hi"}}
	talk := []Message{{"system", "Be kind."}, {"user", " Who are you? "}, {"assistant", "A llama."}, {"user", "Really?"}}
	for _, c := range []struct {
		template string
		messages []Message
		prompt   bool
		want     string
	}{
		{"llama2.jinja", user, true, "<s>[INST] Hi [/INST]"},
		{"llama2.jinja", talk, true, "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Who are you? [/INST] A llama. </s><s>[INST] Really? [/INST]"},
		{"smollm2.jinja", user, true, "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n" +
			"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"},
		{"smollm2.jinja", talk[:2], false, "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Who are you? <|im_end|>\n"},
		{"llama3.jinja", talk[:2], true, "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>" +
			"<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
		{"llama3.1.jinja", user, true, "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n" +
			"Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\n"},
	} {
		got, err := renderChat(t.Context(), template(t, c.template), c.messages, c.prompt, jinja.Dict{{Key: "bos_token", Value: "<s>"}, {Key: "eos_token", Value: "</s>"}}, july(t))
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
		} else if got != c.want {
			t.Errorf("%s\n got %q\nwant %q", c.template, got, c.want)
		}
	}
}

// Every template with every conversation gives what Jinja2 gives, objections included.
func TestChatTemplateJinja2(t *testing.T) {
	cases := readCases(t).Chat
	if len(cases) < 60 {
		t.Fatalf("%d cases, want at least 60", len(cases))
	}
	for _, c := range cases {
		got, err := renderChat(t.Context(), template(t, c.Template), c.Messages, c.AddGenerationPrompt, jinja.Dict{{Key: "bos_token", Value: "<s>"}, {Key: "eos_token", Value: "</s>"}}, july(t))
		var text string
		if json.Unmarshal(c.Result, &text) == nil {
			if err != nil || got != text {
				t.Errorf("%s of %v\n got %q, error %v\nwant %q", c.Template, c.Messages, got, err, text)
			}
			continue
		}
		var objection struct{ Error string }
		if err := json.Unmarshal(c.Result, &objection); err != nil {
			t.Fatal(err)
		}
		if err == nil || !strings.Contains(err.Error(), objection.Error) || !usererr.Is(err) {
			t.Errorf("%s of %v: error %v, want bad input with %q", c.Template, c.Messages, err, objection.Error)
		}
	}
}

// The small model's conversation, in ids: <|im_start|> is 1, <|im_end|> is 2, and no token is added
// to the template's.
func TestEncodeChat(t *testing.T) {
	tok := smallModel(t)
	ids, err := tok.EncodeChat(t.Context(), []Message{{"system", "S"}, {"user", "Hi"}}, true)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Decode(ids, false), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"; got != want {
		t.Errorf("decoded %q, want %q", got, want)
	}
	if ids[0] != 1 || ids[1] == 1 || tok.ChatTemplate() != template(t, "smollm2.jinja") {
		t.Errorf("ids %v, want one <|im_start|> at the beginning", ids)
	}
}

func TestChatTemplateRefuses(t *testing.T) {
	none := &Tokenizer{}
	if _, err := none.ApplyChatTemplate(t.Context(), []Message{{"user", "Hi"}}, true); !usererr.Is(err) {
		t.Errorf("no template: %v", err)
	}
	some := &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, model: &bpe{}, added: newAddedTokens(nil, nil), chatTemplate: "{% if %}"}
	for _, source := range []string{"{% if %}", "{{ 'open", "{% include '/etc/passwd' %}", "{% for x in 3 %}{% endfor %}{{ x.y.z }}", "{{ nothing() }}"} {
		some.chatTemplate = source
		if text, err := some.ApplyChatTemplate(t.Context(), []Message{{"user", "Hi"}}, true); !usererr.Is(err) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: text %q, error %v, want one line of bad input", source, text, err)
		}
	}
	some.chatTemplate = "x"
	if _, err := some.ApplyChatTemplate(t.Context(), nil, true); !usererr.Is(err) {
		t.Errorf("no messages: %v", err)
	}
}

// A template comes with a model. It cannot end or hang a program, and the caller's context ends it
// too.
func TestHostileChatTemplate(t *testing.T) {
	tok := smallModel(t)
	messages := []Message{{"user", "hi"}}
	for _, source := range []string{
		"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
		"{% for i in range(1000000000) %}{% endfor %}",
		"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
		`{{ "x" * 1000000000 }}`,
		`{{ "x" | center(2000000000) }}`,
		strings.Repeat("{{ (", 100_000),
		"{{ " + strings.Repeat("(", 200_000) + " }}",
		`{% include "/chat" %}`,
		"{% import '/etc/passwd' as x %}",
	} {
		tok.chatTemplate = source
		text, err := tok.ApplyChatTemplate(t.Context(), messages, true)
		if !usererr.Is(err) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 200 {
			t.Errorf("%.60q: %d bytes, error %v, want a short line of bad input", source, len(text), err)
		}
	}
	tok.chatTemplate = "{% for i in range(100000) %}{% endfor %}"
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tok.EncodeChat(ctx, messages, true); !errors.Is(err, context.Canceled) || usererr.Is(err) {
		t.Errorf("error %v, want the context's", err)
	}
}

// A special token that the model lacks is not defined; the order of a message's keys is
// transformers'.
func TestChatVariables(t *testing.T) {
	none := &Tokenizer{bos: -1, eos: -1, pad: -1, unknown: -1, model: &bpe{}, added: newAddedTokens(nil, nil)}
	none.chatTemplate = "{{ pad_token is defined }}{{ bos_token }}{{ tools is none }}{{ messages[0] | tojson }}"
	got, err := none.ApplyChatTemplate(t.Context(), []Message{{"user", "<é>\n"}}, true)
	if want := `FalseTrue{"role": "user", "content": "<é>\n"}`; err != nil || got != want {
		t.Errorf("%q, error %v, want %q", got, err, want)
	}
}
