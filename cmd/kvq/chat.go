package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() { register(newChat) }

// chatFlags are those of chat.
type chatFlags struct {
	model    cli.ModelFlags
	cache    cli.CacheFlags
	generate generateFlags
	system   string
	load     string
}

const (
	chatTokens = 512  // of an answer, by default
	chatRoom   = 1024 // tokens that the cache has room for at first
)

func newChat() *cobra.Command {
	var f chatFlags
	c := &cobra.Command{
		Use:   "chat",
		Short: "Talk with a model, whose cache stays from turn to turn",
		Long: `chat talks with a model in its own chat template. The cache stays between turns: only what is new is read. A line is a
message; a backslash at its end goes on with the next line. From a pipe, each line is a message and the answers are
printed, one after the other.

` + chatHelp + `
Ctrl-C ends an answer and keeps what there is of it; at the empty line it ends the chat, as Ctrl-D does.`,
		Example: `  kvq chat
  kvq chat --system "Answer in one sentence." --preset balanced
  printf 'What is a cat?\nAnd a dog?\n' | kvq chat -n 60`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	fs := c.Flags()
	fs.StringVar(&f.system, "system", "", "`text` that tells the model how to answer")
	fs.StringVar(&f.load, "load-cache", "", "go on from a `file` of /save, or of kvq generate --chat --save-cache")
	f.generate.register(fs)
	f.generate.MaxNewTokens = chatTokens
	fs.Lookup("max-new-tokens").DefValue = fmt.Sprint(chatTokens)
	fs.Lookup("max-new-tokens").Usage = "tokens of an answer at most"
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	return c
}

const chatHelp = `  /reset      forget what was said (the system prompt stays)
  /save FILE  write the conversation and its cache to a file, for --load-cache
  /stats      bytes of the cache, tokens in codes, tokens a second
  /help       this list
  /quit       end
`

func (f *chatFlags) run(c *cobra.Command) error {
	ctx, errs := c.Context(), c.ErrOrStderr()
	talk, files, err := f.open(c)
	if err != nil {
		return err
	}
	status := f.model.Status(errs)
	defer status.Close()
	model, err := f.model.Load(ctx, files, errs, fit.Request{
		Model: files.Config(), Cache: talk.config, Batch: 1, Prompt: min(chatRoom/2, files.Config().MaxPositions), NewTokens: min(chatRoom/2, f.generate.MaxNewTokens),
	})
	if err != nil {
		return err
	}
	status.Close()
	defer model.Close(ctx)
	if talk.saved == nil || f.cache.Given(c.Flags()) { // else the flags say nothing of the cache
		f.cache.NoteGroups(errs, c.Flags(), talk.config, files.Config())
	}
	cli.NoteForm(errs, model.Model, talk.config)
	g, err := llama.NewGenerator(model.Model, talk.config)
	if err != nil {
		return err
	}
	if talk.batch, err = g.NewBatch(1, min(chatRoom, files.Config().MaxPositions)); err != nil {
		return err
	}
	defer cli.FinalizeLast(ctx, talk.batch.Finalize, g.Finalize)
	if f.load != "" {
		if _, err := talk.batch.Load(f.load); err != nil {
			return usererr.New("--load-cache: %w", err)
		}
	}
	if err := talk.batch.Prepare(talk.generate); err != nil { // while the first message is typed
		return err
	}
	cli.OutcomeOf(ctx).OnSignal(talk.stopAnswer)
	defer cli.OutcomeOf(ctx).OnSignal(nil)
	return talk.loop(ctx, c.InOrStdin())
}

// open checks everything that can be checked without the weights.
func (f *chatFlags) open(c *cobra.Command) (*talk, *llama.Files, error) {
	files, err := f.model.Open(c)
	if err != nil {
		return nil, nil, err
	}
	t := &talk{out: c.OutOrStdout(), errs: c.ErrOrStderr(), system: f.system, model: files.Config()}
	t.person = cli.IsTerminal(c.InOrStdin()) && cli.IsTerminal(t.out)
	t.quiet = f.model.Status(t.errs) == nil
	if t.tok, err = files.Tokenizer(); err != nil {
		return nil, nil, err
	}
	if t.tok.ChatTemplate() == "" {
		return nil, nil, usererr.New("the model has no chat template, so nobody can talk with it: kvq generate continues texts")
	}
	if t.config, err = f.cache.Config(c.Flags(), t.model); err != nil {
		return nil, nil, err
	}
	if t.generate, err = f.generate.config(c.Flags(), t.model, t.tok, t.errs); err != nil {
		return nil, nil, err
	}
	if f.load != "" {
		if f.model.Devices > 1 {
			return nil, nil, usererr.New("--load-cache wants a model on one device, got --devices %d", f.model.Devices)
		}
		if err := t.takeSaved(f.load, c.Flags().Changed("system")); err != nil {
			return nil, nil, usererr.New("--load-cache %s: %w", f.load, err)
		}
		if !f.cache.Given(c.Flags()) {
			t.config = t.saved.Config
		}
		if err := t.saved.Check(files, t.config); err != nil {
			return nil, nil, usererr.New("--load-cache %s: %w", f.load, err)
		}
	}
	return t, files, nil
}

// loop takes messages until there are no more.
func (t *talk) loop(ctx context.Context, in io.Reader) error {
	if t.person {
		fmt.Fprintf(t.errs, "cache %s; /help lists what else there is, Ctrl-D ends\n", t.config)
	}
	lines := readMessages(in)
	for {
		if t.person {
			fmt.Fprint(t.out, ">>> ")
		}
		var m message
		select {
		case m = <-lines:
		case <-ctx.Done():
			if t.person {
				fmt.Fprintln(t.out)
			}
			return ctx.Err()
		}
		if m.err != nil {
			if t.person {
				fmt.Fprintln(t.out)
			}
			if errors.Is(m.err, io.EOF) {
				return nil
			}
			return usererr.New("reading standard input: %w", m.err)
		}
		over, err := t.take(ctx, m.text)
		if over || ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if !t.person || !usererr.Is(err) {
				return err
			}
			fmt.Fprintf(t.errs, "kvq: %s\n", oneLine(err)) // a person can do something about it
		}
	}
}

// take does what a line says; over ends the chat.
func (t *talk) take(ctx context.Context, text string) (over bool, err error) {
	command, argument, _ := strings.Cut(strings.TrimSpace(text), " ")
	argument = strings.TrimSpace(argument)
	switch command {
	case "":
		return false, nil
	case "/quit", "/exit", "/bye":
		return true, nil
	case "/help":
		_, err = io.WriteString(t.out, chatHelp)
	case "/reset":
		t.reset()
	case "/stats":
		err = t.stats()
	case "/save":
		err = t.save(argument)
	default:
		if strings.HasPrefix(text, "/") {
			return false, usererr.New("%s is no command, /help lists them (a blank before it makes it a message)", command)
		}
		return false, t.answer(ctx, text)
	}
	return false, err
}

// savedTalk is what a file says of a conversation.
type savedTalk struct {
	keptNote
	Messages []tokenizer.Message `json:"messages,omitempty"`
}

// takeSaved begins with the conversation of a file.
func (t *talk) takeSaved(path string, system bool) error {
	var err error
	if t.saved, err = llama.ReadSaved(path); err != nil {
		return err
	}
	var note savedTalk
	if json.Unmarshal([]byte(t.saved.Note), &note) != nil || !note.Chat {
		return usererr.New("it holds no conversation, want a file of /save, or of kvq generate --chat --save-cache")
	}
	if system && t.system != note.System {
		return usererr.New("it was saved with another --system: %.60q", note.System)
	}
	t.system, t.messages = note.System, note.Messages
	if note.Text != "" { // a prompt that waits for its question
		t.before = note.Text + "\n\n"
	}
	return nil
}

// save is /save.
func (t *talk) save(path string) error {
	if path == "" {
		return usererr.New("/save wants a file: /save FILE")
	}
	if len(t.messages) == 0 {
		return usererr.New("/save: nothing was said yet")
	}
	if err := filesys.CanWrite(path); err != nil {
		return usererr.New("/save %w", err)
	}
	note, err := json.Marshal(savedTalk{keptNote{Chat: true, System: t.system}, t.messages})
	if err != nil {
		return err
	}
	if err := t.batch.Save(path, string(note)); err != nil {
		return usererr.New("/save: %w", err)
	}
	_, err = fmt.Fprintf(t.out, "%d tokens saved to %s\n", len(t.batch.Held(0)), path)
	return err
}
