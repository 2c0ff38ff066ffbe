package main

import (
	"bufio"
	"context"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// tutorialPrompts are what runs when no prompt is given.
var tutorialPrompts = []string{"Hello, how are you?", "I am going to subscribe to this channel because"}

// promptFlags say what the model is to continue.
type promptFlags struct {
	prompts []string
	chat    bool
}

func (f *promptFlags) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.prompts, "prompt", nil, "`text` to continue; repeat it for a batch, - reads one a line from standard input (default: the tutorial's two)")
	fs.BoolVar(&f.chat, "chat", false, "put each prompt into the model's chat template, as a user's message")
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
	rows := make([][]tokenizer.Token, len(prompts))
	for i, prompt := range prompts {
		if f.chat {
			if rows[i], err = tok.EncodeChat(ctx, []tokenizer.Message{{Role: "user", Content: prompt}}, true); err != nil {
				return nil, err
			}
		} else {
			rows[i] = tok.Encode(prompt)
		}
		if prompt == "" || len(rows[i]) == 0 {
			return nil, usererr.New("prompt %d of %d is empty, want at least one token", i+1, len(prompts))
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

// texts returns the prompts given, those of standard input in their place.
func (f *promptFlags) texts(in io.Reader) ([]string, error) {
	if len(f.prompts) == 0 {
		return tutorialPrompts, nil
	}
	var list []string
	for _, p := range f.prompts {
		if p != "-" {
			list = append(list, p)
			continue
		}
		lines := bufio.NewReader(in)
		for {
			line, err := lines.ReadString('\n')
			if line = strings.TrimRight(line, "\r\n"); strings.TrimSpace(line) != "" {
				list = append(list, line)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, usererr.New("reading prompts from standard input: %w", err)
			}
		}
	}
	if len(list) == 0 {
		return nil, usererr.New("--prompt -: standard input holds no prompt, want one a line")
	}
	return list, nil
}
