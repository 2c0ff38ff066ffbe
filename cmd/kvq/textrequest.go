package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// textFlags are those of a command that generates text.
type textFlags struct {
	model    cli.ModelFlags
	cache    cli.CacheFlags
	prompts  promptFlags
	generate generateFlags
	kept     keptFlags // of generate alone
	json     bool
}

func (f *textFlags) register(fs *pflag.FlagSet) {
	f.prompts.register(fs)
	f.generate.register(fs)
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	cli.RegisterJSON(fs, &f.json)
}

// textRequest is a checked request to generate text, before any weight is loaded.
type textRequest struct {
	files    *llama.Files
	tok      *tokenizer.Tokenizer
	cache    kvq.Config
	generate llama.GenerateConfig
	batch    *batch
	only     bool             // it is run once: nothing after it needs the memory
	prepared *llama.Generator // that run uses; nil: it makes one
}

// request checks everything that can be checked without the weights.
func (f *textFlags) request(c *cobra.Command) (*textRequest, error) {
	files, err := f.model.Open(c)
	if err != nil {
		return nil, err
	}
	r := &textRequest{files: files}
	if r.cache, err = f.cache.Config(c.Flags(), files.Config()); err != nil {
		return nil, err
	}
	r.cache = f.kept.config(f.cache.Given(c.Flags()), r.cache)
	f.generate.nothing = f.kept.save != "" && f.generate.MaxNewTokens == 0
	if r.tok, err = files.Tokenizer(); err != nil {
		return nil, err
	}
	if r.generate, err = f.generate.config(c.Flags(), files.Config(), r.tok, c.ErrOrStderr()); err != nil {
		return nil, err
	}
	if r.batch, err = f.prompts.batch(c.Context(), c.InOrStdin(), r.tok, files.Config()); err != nil {
		return nil, err
	}
	return r, f.kept.check(r)
}

// memoryRequest is the memory that the request takes with a cache.
func (r *textRequest) memoryRequest(cache kvq.Config) fit.Request {
	return fit.Request{Model: r.files.Config(), Cache: cache, Batch: len(r.batch.IDs), Prompt: len(r.batch.IDs[0]), NewTokens: r.generate.MaxNewTokens}
}

// prepare begins to compile for a model whose weights are not there yet, and the cache that run is
// called with next.
func (r *textRequest) prepare(model *llama.Model, cache kvq.Config) error {
	g, err := llama.NewGenerator(model, cache)
	if err != nil {
		return err
	}
	r.prepared = g
	return g.Prepare(r.batch.Batch, r.generate)
}

// free gives back what was prepared and not run.
func (r *textRequest) free(ctx context.Context) {
	if r.prepared != nil {
		cli.FinalizeLast(ctx, r.prepared.Finalize)
	}
}

// run generates with one cache; onBlock gets the new tokens of each block, and an error from it
// ends the generation.
func (r *textRequest) run(ctx context.Context, model *cli.LoadedModel, cache kvq.Config, onBlock func([][]tokenizer.Token) error) (*llama.Result, error) {
	g := r.prepared
	if r.prepared = nil; g == nil {
		var err error
		if g, err = llama.NewGenerator(model.Model, cache); err != nil {
			return nil, err
		}
	}
	if r.only {
		defer cli.FinalizeLast(ctx, g.Finalize)
	} else {
		defer cli.Finalize(ctx, g.Finalize)
	}
	var result *llama.Result
	for block, err := range g.Stream(ctx, r.batch.Batch, r.generate) {
		result = block.Result
		if err == nil {
			err = onBlock(block.Tokens)
		}
		if err != nil {
			return result, err
		}
	}
	return result, nil
}

// before is the prompts as a reader should see them in front of the texts: not at all in a chat.
func (f *textFlags) before(b *batch) []string {
	switch {
	case f.prompts.chat:
		return make([]string, len(b.prompts))
	case f.prompts.before != "": // a long text that was read before
		return []string{f.prompts.only}
	}
	return b.prompts
}
