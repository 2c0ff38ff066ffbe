package main

import (
	"io"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/docs/texts"
	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// builtIn is what the built-in story is called where texts have names.
const builtIn = "built-in story"

// textFiles are texts to read through a cache.
type textFiles struct {
	paths              []string
	prefill, maxTokens int
}

func (f *textFiles) register(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.paths, "text", nil, "`file` with a text to read, - for standard input; repeat it for a batch (default: a built-in story)")
	fs.IntVar(&f.prefill, "prefill", 64, "tokens of each text that go in at once and are not scored")
	fs.IntVar(&f.maxTokens, "max-tokens", 0, "read so many tokens of each text at most, those of --prefill included (0: all)")
}

// names are the texts as they are told.
func (f *textFiles) names() []string {
	if len(f.paths) == 0 {
		return []string{builtIn}
	}
	return f.paths
}

// read returns the tokens of each text, as the model has them.
func (f *textFiles) read(in io.Reader, files *llama.Files) ([][]tokenizer.Token, error) {
	model := files.Config()
	if f.prefill < 1 {
		return nil, usererr.New("--prefill %d, want at least 1", f.prefill)
	}
	if f.maxTokens != 0 && f.maxTokens <= f.prefill {
		return nil, usererr.New("--max-tokens %d, want more than the %d tokens of --prefill, or 0 for all", f.maxTokens, f.prefill)
	}
	tok, err := files.Tokenizer()
	if err != nil {
		return nil, err
	}
	var list [][]tokenizer.Token
	for _, path := range f.names() {
		text, err := f.text(in, path)
		if err != nil {
			return nil, err
		}
		ids := tok.Encode(text)
		if f.maxTokens > 0 && len(ids) > f.maxTokens {
			ids = ids[:f.maxTokens]
		}
		switch n := len(ids); {
		case n <= f.prefill:
			return nil, usererr.New("--text %s has %d tokens, want more than the %d of --prefill", path, n, f.prefill)
		case n > model.MaxPositions:
			return nil, usererr.New("--text %s has %d tokens, the model reads at most %d: cap it with --max-tokens", path, n, model.MaxPositions)
		}
		list = append(list, ids)
	}
	return list, nil
}

// text is one text, from where its name says.
func (f *textFiles) text(in io.Reader, path string) (string, error) {
	if len(f.paths) == 0 {
		return texts.Story, nil
	}
	var data []byte
	var err error
	if path == "-" {
		data, err = filesys.ReadAll(in)
	} else {
		data, err = filesys.Read(path)
	}
	if err != nil {
		return "", usererr.New("--text: %w", err)
	}
	return cli.Text("--text "+path, data)
}
