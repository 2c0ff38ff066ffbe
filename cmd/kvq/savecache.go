package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/filesys"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// keptFlags are for a prompt that is read once and goes on in other calls.
type keptFlags struct {
	save, load string

	saved *llama.Saved // of load; nil until taken
	note  keptNote
	kept  int // tokens of load that the prompt goes on from
	read  int // tokens that were read after these
}

// keptNote is what a file says in the command's own words.
type keptNote struct {
	Text   string `json:"text"` // of the prompt, before the chat template
	Chat   bool   `json:"chat,omitempty"`
	System string `json:"system,omitempty"`
}

func (k *keptFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&k.save, "save-cache", "", "write the prompt's cache to a `file`; with --max-new-tokens 0 nothing is generated")
	fs.StringVar(&k.load, "load-cache", "", "go on from the cache in a `file`: the text continues the prompt that it was saved with")
	cli.UnderCache(fs, "save-cache", "load-cache")
}

func (k *keptFlags) given() bool { return k.save != "" || k.load != "" }

// take reads what the file to load says, and puts its prompt before the one given.
func (k *keptFlags) take(c *cobra.Command, f *textFlags) error {
	if k.given() && f.model.Devices > 1 {
		return usererr.New("--save-cache and --load-cache want a model on one device, got --devices %d", f.model.Devices)
	}
	if k.save != "" {
		if err := filesys.CanWrite(k.save); err != nil {
			return usererr.New("--save-cache %w", err)
		}
	}
	if k.load == "" {
		return nil
	}
	saved, err := llama.ReadSaved(k.load)
	if err != nil {
		return usererr.New("--load-cache: %w", err)
	}
	if json.Unmarshal([]byte(saved.Note), &k.note) != nil || k.note.Text == "" {
		return usererr.New("--load-cache %s: it does not say which text it was made of; want a file of --save-cache, or of kvq chat for kvq chat --load-cache", k.load)
	}
	if !f.prompts.given() {
		return usererr.New("--load-cache %s: want a text that goes on from it", k.load)
	}
	fs := c.Flags()
	switch {
	case f.prompts.chat && !k.note.Chat:
		return usererr.New("--load-cache %s: it was saved without --chat, leave it out here too", k.load)
	case fs.Changed("system") && f.prompts.system != k.note.System:
		return usererr.New("--load-cache %s: it was saved with another --system: %.60q", k.load, k.note.System)
	}
	f.prompts.chat, f.prompts.system = k.note.Chat, k.note.System
	f.prompts.before = k.note.Text
	if k.note.Chat {
		f.prompts.before += "\n\n"
	}
	k.saved = saved
	return nil
}

// config is the configuration of the cache: that of the flags, or of the file to load where no flag
// says anything.
func (k *keptFlags) config(given bool, flags kvq.Config) kvq.Config {
	if k.saved != nil && !given {
		return k.saved.Config
	}
	return flags
}

// check refuses a file that does not fit, before any weight is loaded.
func (k *keptFlags) check(r *textRequest) error {
	if k.given() && len(r.batch.IDs) != 1 {
		return usererr.New("--save-cache and --load-cache are for one prompt, got %d", len(r.batch.IDs))
	}
	if k.saved == nil {
		return nil
	}
	if err := k.saved.Check(r.files, r.cache); err != nil {
		return usererr.New("--load-cache %s: %w", k.load, err)
	}
	return nil
}

// run is textRequest.run over a cache that is loaded or saved.
func (k *keptFlags) run(ctx context.Context, r *textRequest, f *textFlags, model *cli.LoadedModel, onBlock func([][]tokenizer.Token) error) (*llama.Result, error) {
	g, err := llama.NewGenerator(model.Model, r.cache)
	if err != nil {
		return nil, err
	}
	b, err := g.NewBatch(1, 0)
	if err != nil {
		return nil, err
	}
	defer cli.FinalizeLast(ctx, b.Finalize, g.Finalize)
	if k.load != "" {
		if _, err := b.Load(k.load); err != nil {
			return nil, usererr.New("--load-cache: %w", err)
		}
	}
	var result *llama.Result
	prompt := r.batch.Row(0)
	for block, err := range b.Stream(ctx, 0, prompt, r.generate) {
		if block.Result != nil && result == nil {
			k.kept, k.read = block.Result.Kept, len(prompt)-block.Result.Kept
		}
		begun := result != nil
		if result = block.Result; err != nil {
			return result, err
		}
		if !begun && k.save != "" { // the cache holds the prompt and nothing else
			note, err := json.Marshal(keptNote{f.prompts.before + f.prompts.only, f.prompts.chat, f.prompts.system})
			if err != nil {
				return result, err
			}
			if err := b.Save(k.save, string(note)); err != nil {
				return result, fmt.Errorf("--save-cache: %w", err)
			}
			if f.generate.nothing {
				result.Tokens, result.Lengths = [][]tokenizer.Token{{}}, []int{0}
				return result, nil
			}
		}
		if err := onBlock(block.Tokens); err != nil {
			return result, err
		}
	}
	return result, nil
}

// tell says what was saved and loaded.
func (k *keptFlags) tell(errs io.Writer) {
	if k.load != "" {
		cli.Note(errs, "%d of %d tokens of %s kept, %d read after them", k.kept, len(k.saved.Tokens), k.load, k.read)
	}
	if k.save != "" {
		cli.Note(errs, "%d tokens saved to %s", k.kept+k.read, k.save)
	}
}
