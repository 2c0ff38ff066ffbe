package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// talked is what a model answers to messages, each conversation read at once by the library.
func talked(t *testing.T, model string, n int, said ...string) (answers []string) {
	t.Helper()
	files := open(t, model)
	tok, err := files.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	m, err := files.Load(testbackend.XLA(t), llama.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Finalize()
	g, err := llama.NewGenerator(m, kvq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Finalize()
	var messages []tokenizer.Message
	for _, text := range said {
		messages = append(messages, tokenizer.Message{Role: "user", Content: text})
		ids, err := tok.EncodeChat(context.Background(), messages, true)
		if err != nil {
			t.Fatal(err)
		}
		r, err := g.Generate(context.Background(), tokenizer.Batch{IDs: [][]tokenizer.Token{ids}}, llama.GenerateConfig{MaxNewTokens: n, MinNewTokens: n})
		if err != nil {
			t.Fatal(err)
		}
		answer := tok.Decode(r.Tokens[0], true)
		answers = append(answers, answer)
		messages = append(messages, tokenizer.Message{Role: "assistant", Content: answer})
	}
	return answers
}

// From a pipe, each line is a message and gets the answer that the whole conversation gets when it
// is read at once; commands do what /help says.
func TestChatFromAPipe(t *testing.T) {
	testlane.OnlyAll(t, "compiles a made-up model; TestGenerateSaveAndLoadCache goes on from a cache too")
	needsXLA(t)
	model, path := tinyModel(t, nil), filepath.Join(t.TempDir(), "talk")
	writeJSON(t, map[string]any{
		"eos_token":     "</s>",
		"chat_template": "{% for m in messages %}{% if m['role'] == 'user' %}<s>{% endif %}{{ m['content'] }}{% endfor %}",
	}, model, "tokenizer_config.json")
	a, b := tinyText(5, 6, 7), tinyText(30, 31)
	chat := func(in string, more ...string) (int, string, string) {
		return runKVQ(t, in, append([]string{"chat", "--model", model, "--max-new-tokens", "6", "--min-new-tokens", "6", "--quiet"}, more...)...)
	}
	want := talked(t, model, 6, a, b)
	status, out, errs := chat(a+"\n\n/stats\n/save "+path+"\n"+b+"\n/reset\n"+a+"\n/quit\nnever read\n", "--cache", "full")
	lines := strings.Split(out, "\n")
	if status != exitOK || errs != "" || len(lines) < 4 {
		t.Fatalf("status %d, %q; %s", status, out, errs)
	}
	var answers []string
	for _, line := range lines {
		if strings.ContainsAny(line, "abcdefghijklmnopqrstuvwxyz") || line == "" {
			continue // of a command
		}
		answers = append(answers, line)
	}
	if !slices.Equal(answers, []string{want[0], want[1], want[0]}) {
		t.Errorf("answers %q, want %q and the first again", answers, want)
	}
	for _, said := range []string{"tokens   9 of at most 512: 0 in codes, 9 exact", "9 tokens saved to " + path} {
		if !strings.Contains(out, said) {
			t.Errorf("%q is not in %q", said, out)
		}
	}
	status, out, errs = chat(b+"\n/stats\n", "--load-cache", path)
	if status != exitOK || !strings.HasPrefix(out, want[1]+"\n") || !strings.Contains(out, "; 9 tokens kept") || errs != "" {
		t.Errorf("after loading: status %d, %q, want %q with 9 tokens kept; %s", status, out, want[1], errs)
	}
	if status, out, errs = chat("/nope\n", "--load-cache", path); status != exitBadInput || !strings.Contains(errs, "/nope is no command, /help lists them") {
		t.Errorf("an unknown command: status %d, %q %q", status, out, errs)
	}
	if status, out, errs = chat("/help\n", "--cache", "full"); status != exitOK || out != chatHelp {
		t.Errorf("/help: status %d, %q %q", status, out, errs)
	}
}

// A conversation that fills the context says so in one line with what to do; a template that writes
// what was said in another way has it read again, with a word.
func TestChatAtItsLimits(t *testing.T) {
	testlane.OnlyAll(t, "compiles made-up models; TestChatFromAPipe is the small chat")
	needsXLA(t)
	small := tinyModel(t, func(c map[string]any) { c["max_position_embeddings"] = 20 })
	flags := []string{"chat", "--cache", "full", "--max-new-tokens", "30", "--min-new-tokens", "30", "--quiet"}
	status, out, errs := runKVQ(t, tinyText(5, 6, 7)+"\n"+tinyText(8)+"\n", append(flags, "--model", small)...)
	if n := len([]rune(strings.TrimSpace(out))); status != exitBadInput || n < 10 || n > 17 ||
		!strings.Contains(errs, "the context of 20 tokens is full, and the answer ends here: /save FILE keeps the conversation, /reset begins anew\n") ||
		!strings.Contains(errs, "the context is full: with this message the conversation has ") || strings.Count(errs, "\n") != 2 {
		t.Errorf("status %d, %d tokens, %q", status, n, errs)
	}
	rewriting := tinyModel(t, nil)
	writeJSON(t, map[string]any{
		"eos_token":     "</s>", // answers are left out once they are over
		"chat_template": "{% for m in messages %}{% if m['role'] == 'user' %}<s>{{ m['content'] }}{% endif %}{% endfor %}",
	}, rewriting, "tokenizer_config.json")
	flags[4], flags[6] = "6", "6"
	status, _, errs = runKVQ(t, tinyText(5, 6, 7)+"\n"+tinyText(8)+"\n"+tinyText(9)+"\n", append(flags, "--model", rewriting)...)
	if want := "kvq: note: the chat template writes what was said differently now: 5 tokens are read again\n"; status != exitOK || errs != want {
		t.Errorf("status %d, %q, want %q once", status, errs, want)
	}
}

// What cannot be talked with is refused before any weight is loaded.
func TestChatRefusals(t *testing.T) {
	model := tinyModel(t, nil)
	writeJSON(t, map[string]any{"eos_token": "</s>"}, model, "tokenizer_config.json")
	status, _, errs := runKVQ(t, "", "chat", "--model", model)
	if want := "kvq: the model has no chat template, so nobody can talk with it: kvq generate continues texts\n"; status != exitBadInput || errs != want {
		t.Errorf("status %d, %q, want %q", status, errs, want)
	}
	status, _, errs = runKVQ(t, "", "chat", "--model", tinyModel(t, nil), "--load-cache", "nowhere")
	if status == exitOK || !strings.HasPrefix(errs, "kvq: --load-cache nowhere: ") || strings.Count(errs, "\n") != 1 {
		t.Errorf("status %d, %q", status, errs)
	}
}
