package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// tutorialPrompts are what runs when no prompt is given.
var tutorialPrompts = []string{"Hello, how are you?", "I am going to subscribe to this channel because"}

// promptFlags say what the model is to continue.
type promptFlags struct {
	prompts []string
	file    string
	lines   bool
	chat    bool
	system  string

	before string // of the one prompt, by --load-cache
	only   string // the one prompt as it was given, after before
}

func (f *promptFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.prompts, "prompt", "p", nil, "`text` to continue; repeat it for a batch, - reads standard input (default: the tutorial's two)")
	fs.StringVarP(&f.file, "prompt-file", "f", "", "`file` with a text to continue")
	fs.BoolVar(&f.lines, "lines", false, "take each line of --prompt-file or standard input as a text of its own")
	fs.BoolVar(&f.chat, "chat", false, "put each prompt into the model's chat template, as a user's message")
	fs.StringVar(&f.system, "system", "", "`text` that tells the model how to answer (with --chat)")
	cli.UnderMore(fs, "lines", "system")
}

// oneText is how a command takes a text without a flag.
func oneText(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usererr.New("want one text, in quotes if it has blanks, or --prompt for each text of a batch; got %d arguments: %s",
			len(args), strings.Join(args, " | "))
	}
	return nil
}

// take adds the text that came without a flag.
func (f *promptFlags) take(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if f.given() {
		return usererr.New("%q beside --prompt or --prompt-file: want one or the other", args[0])
	}
	f.prompts = args
	return nil
}

// batch is the prompts as tokens, padded on the left.
type batch struct {
	prompts []string
	tokenizer.Batch
}

// batch makes tokens of the prompts. The padding is the end of sequence, as in the tutorial.
func (f *promptFlags) batch(ctx context.Context, in io.Reader, tok *tokenizer.Tokenizer, model llama.Config) (*batch, error) {
	prompts, err := f.texts(in)
	if err != nil {
		return nil, err
	}
	if len(prompts) == 1 {
		f.only = prompts[0]
		prompts = []string{f.before + f.only}
	}
	rows := make([][]tokenizer.Token, len(prompts))
	for i, prompt := range prompts {
		if f.chat {
			if rows[i], err = tok.EncodeChat(ctx, f.messages(prompt), true); err != nil {
				return nil, err
			}
		} else {
			rows[i] = tok.Encode(prompt)
		}
		if prompt == "" || len(rows[i]) == 0 {
			return nil, usererr.New("prompt %d of %d is empty, want at least one token", i+1, len(prompts))
		}
		what := fmt.Sprintf("prompt %d of %d", i+1, len(prompts))
		if f.chat {
			what += " as the chat template writes it"
		}
		if err := checkIDs(tok, model, rows[i], what); err != nil {
			return nil, err
		}
		if n := len(rows[i]); n > model.MaxPositions {
			return nil, usererr.New("prompt %d of %d has %d tokens, the model reads at most %d", i+1, len(prompts), n, model.MaxPositions)
		}
	}
	pad := tok.EOS()
	if pad < 0 || int(pad) >= model.VocabSize {
		pad = tokenizer.Token(model.PadID)
	}
	tokens, err := tok.Batch(rows, tokenizer.Padding{ID: &pad})
	return &batch{prompts, tokens}, err
}

// checkIDs refuses tokens that the tokenizer knows and the model does not. what is the text that
// they are of.
func checkIDs(tok *tokenizer.Tokenizer, model llama.Config, ids []tokenizer.Token, what string) error {
	for _, id := range ids {
		if int(id) >= model.VocabSize {
			piece, _ := tok.Piece(id)
			return usererr.New("%s holds %.60q, which was added to the tokenizer as %d and not to the model, whose vocabulary ends at %d; leave it out, or take a model that knows it",
				what, piece, id, model.VocabSize-1)
		}
	}
	return nil
}

// given tells whether there is a prompt; without one the tutorial's are taken.
func (f *promptFlags) given() bool { return len(f.prompts) > 0 || f.file != "" }

// messages are a prompt as a conversation.
func (f *promptFlags) messages(prompt string) []tokenizer.Message {
	user := tokenizer.Message{Role: "user", Content: prompt}
	if f.system == "" {
		return []tokenizer.Message{user}
	}
	return []tokenizer.Message{{Role: "system", Content: f.system}, user}
}

// texts returns the prompts given, those of files and standard input in their place.
func (f *promptFlags) texts(in io.Reader) ([]string, error) {
	if f.system != "" && !f.chat {
		return nil, usererr.New("--system needs --chat: the model's chat template has the place for it")
	}
	if f.lines && f.file == "" && !slices.Contains(f.prompts, "-") {
		return nil, usererr.New("--lines needs --prompt-file FILE or --prompt -")
	}
	var list []string
	for _, p := range f.prompts {
		if p != "-" {
			list = append(list, p)
			continue
		}
		data, err := filesys.ReadAll(in)
		if err != nil {
			return nil, usererr.New("--prompt -: reading standard input: %w", err)
		}
		texts, err := f.split("--prompt -: standard input", data)
		if err != nil {
			return nil, err
		}
		list = append(list, texts...)
	}
	if f.file != "" {
		data, err := filesys.Read(f.file)
		if err != nil {
			return nil, usererr.New("--prompt-file: %w", err)
		}
		texts, err := f.split("--prompt-file "+f.file, data)
		if err != nil {
			return nil, err
		}
		list = append(list, texts...)
	}
	if len(list) == 0 {
		return tutorialPrompts, nil
	}
	return list, nil
}

// split makes prompts of what a source holds: one, without the line break at its end, or one a
// line.
func (f *promptFlags) split(source string, data []byte) ([]string, error) {
	text, err := cli.Text(source, data)
	if err != nil {
		return nil, err
	}
	var list []string
	if f.lines {
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
				list = append(list, line)
			}
		}
	} else if strings.TrimSpace(text) != "" {
		text = strings.TrimSuffix(text, "\n")
		list = []string{strings.TrimSuffix(text, "\r")}
	}
	if len(list) == 0 {
		return nil, usererr.New("%s holds no prompt", source)
	}
	return list, nil
}
