package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// jobFlags are those of a command that generates text.
type jobFlags struct {
	model    cli.ModelFlags
	cache    cli.CacheFlags
	prompts  promptFlags
	generate generateFlags
	json     bool
}

func (f *jobFlags) register(fs *pflag.FlagSet) {
	f.model.Register(fs)
	f.model.RegisterDevices(fs)
	f.cache.Register(fs)
	f.prompts.register(fs)
	f.generate.register(fs)
	cli.RegisterJSON(fs, &f.json)
}

// job is a checked request to generate text, before any weight is loaded.
type job struct {
	files    *llama.Files
	tok      *tokenizer.Tokenizer
	cache    kvq.Config
	generate llama.GenerateConfig
	batch    *batch
}

// job checks everything that can be checked without the weights.
func (f *jobFlags) job(c *cobra.Command) (*job, error) {
	files, err := f.model.Open(c)
	if err != nil {
		return nil, err
	}
	j := &job{files: files}
	if j.cache, err = f.cache.Config(c.Flags(), files.Config()); err != nil {
		return nil, err
	}
	if j.generate, err = f.generate.config(c.Flags(), files.Config(), c.ErrOrStderr()); err != nil {
		return nil, err
	}
	if j.tok, err = files.Tokenizer(); err != nil {
		return nil, err
	}
	j.batch, err = f.prompts.batch(c.InOrStdin(), j.tok, files.Config())
	return j, err
}

// request is the memory that the job takes with a cache.
func (j *job) request(cache kvq.Config) llama.Request {
	return llama.Request{Model: j.files.Config(), Cache: cache, Batch: len(j.batch.ids), Prompt: len(j.batch.ids[0]), NewTokens: j.generate.MaxNewTokens}
}

// run generates with one cache; onBlock gets new tokens as in llama.Generator.Generate.
func (j *job) run(ctx context.Context, model *cli.LoadedModel, cache kvq.Config, onBlock func([][]tokenizer.Token) error) (*llama.Result, error) {
	g, err := llama.NewGenerator(model.Model, cache)
	if err != nil {
		return nil, err
	}
	if ctx.Err() == nil {
		defer func() {
			if ctx.Err() == nil { // else calls that nobody waits for may be under way
				g.Finalize()
			}
		}()
	}
	return g.Generate(ctx, j.batch.ids, j.batch.mask, j.generate, onBlock)
}

// before is the prompts as a reader should see them in front of the texts: not at all in a chat.
func (f *jobFlags) before(b *batch) []string {
	if f.prompts.chat {
		return make([]string, len(b.prompts))
	}
	return b.prompts
}

// generatedJSON is one row of generate's output.
type generatedJSON struct {
	Prompt    string            `json:"prompt"`
	InputIDs  []tokenizer.Token `json:"input_ids"`      // with padding
	Mask      []int32           `json:"attention_mask"` // 1 for a token, 0 for padding
	OutputIDs []tokenizer.Token `json:"output_ids"`     // new tokens alone
	Text      string            `json:"text"`           // of the new tokens
}

// cacheJSON is what a cache took.
type cacheJSON struct {
	Config       string      `json:"config"`
	Bytes        int64       `json:"bytes"` // on all devices together
	FullBytes    int64       `json:"full_precision_bytes"`
	DeviceBytes  []int64     `json:"bytes_per_device,omitempty"` // with several devices
	Parts        kvq.Memory  `json:"parts"`
	FullParts    *kvq.Memory `json:"full_precision_parts,omitempty"`
	BitsPerValue *float64    `json:"bits_per_value,omitempty"`
}

func newCacheJSON(config kvq.Config, r *llama.Result) *cacheJSON {
	if r == nil || r.Cache.Total() == 0 { // interrupted before there was one
		return nil
	}
	c := &cacheJSON{Config: config.String(), Bytes: r.Cache.Total(), FullBytes: r.FullCacheBytes, Parts: r.Cache}
	if len(r.DeviceCaches) > 1 {
		for _, m := range r.DeviceCaches {
			c.DeviceBytes = append(c.DeviceBytes, m.Total())
		}
	}
	return c
}

// timingJSON is in seconds.
type timingJSON struct {
	Load            float64 `json:"load_s"`
	Compile         float64 `json:"compile_s"`
	Prefill         float64 `json:"prefill_s"`
	Decode          float64 `json:"decode_s"`
	TokensPerSecond float64 `json:"decode_tokens_per_s"` // of all rows together
}

func newTimingJSON(load time.Duration, t llama.Timing, rows int) timingJSON {
	return timingJSON{
		Load: load.Seconds(), Compile: t.Compile.Seconds(), Prefill: t.Prefill.Seconds(), Decode: t.Decode.Seconds(),
		TokensPerSecond: t.StepsPerSecond() * float64(rows),
	}
}

func (t timingJSON) String() string {
	return fmt.Sprintf("load %.1f s, compile %.1f s, prefill %.2f s, decode %.2f s (%.1f tokens/s)", t.Load, t.Compile, t.Prefill, t.Decode, t.TokensPerSecond)
}
