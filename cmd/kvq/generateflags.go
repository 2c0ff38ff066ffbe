package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
)

// generateFlags say how tokens are picked, by the tutorial's names.
type generateFlags struct{ llama.GenerateConfig }

func (f *generateFlags) register(fs *pflag.FlagSet) {
	f.GenerateConfig = llama.GenerateConfig{MaxNewTokens: 20, Temperature: 1, TopP: 1, TopK: 50} // transformers' defaults
	fs.IntVarP(&f.MaxNewTokens, "max-new-tokens", "n", f.MaxNewTokens, "tokens to generate at most, for each prompt")
	fs.IntVar(&f.MinNewTokens, "min-new-tokens", f.MinNewTokens, "tokens before an end of sequence is allowed")
	fs.BoolVar(&f.DoSample, "do-sample", false, "draw tokens at random instead of taking the most likely one")
	fs.Float64Var(&f.Temperature, "temperature", f.Temperature, "below 1 sharper, above 1 flatter (with --do-sample)")
	fs.Float64Var(&f.TopP, "top-p", f.TopP, "draw among the most likely tokens of this probability together (with --do-sample)")
	fs.IntVar(&f.TopK, "top-k", f.TopK, "draw among so many most likely tokens, 0 for all (with --do-sample)")
	fs.Int64Var(&f.Seed, "seed", 0, "start of the random numbers (with --do-sample)")
	cli.UnderSampling(fs, "min-new-tokens", "do-sample", "temperature", "top-p", "top-k", "seed")
}

// config returns the settings, checked for a model. Sampling settings without --do-sample are the
// tutorial's own habit where they change nothing; others get a warning.
func (f *generateFlags) config(fs *pflag.FlagSet, model llama.Config, errs io.Writer) (llama.GenerateConfig, error) {
	// 0 stands for a default in the library; here it was asked for.
	switch {
	case f.MaxNewTokens == 0:
		return f.GenerateConfig, usererr.New("--max-new-tokens 0, want at least 1")
	case f.DoSample && f.Temperature == 0:
		return f.GenerateConfig, usererr.New("--temperature 0, want above 0 (for the most likely token, leave --do-sample off)")
	case f.DoSample && f.TopP == 0:
		return f.GenerateConfig, usererr.New("--top-p 0, want above 0 and at most 1")
	}
	if err := f.Validate(model); err != nil {
		return f.GenerateConfig, usererr.New("%s", inFlagWords(err.Error()))
	}
	neutral := map[string]bool{"temperature": f.Temperature == 1, "top-p": f.TopP == 1, "top-k": f.TopK == 0 || f.TopK == 50}
	for _, name := range []string{"temperature", "top-p", "top-k", "seed"} {
		if !f.DoSample && fs.Changed(name) && !neutral[name] {
			fmt.Fprintf(errs, "kvq: warning: --%s has no effect without --do-sample\n", name)
		}
	}
	return f.GenerateConfig, nil
}

// inFlagWords replaces the names of settings, which are the tutorial's, by the flags that set them.
func inFlagWords(message string) string {
	for _, flag := range []string{"max-new-tokens", "min-new-tokens", "do-sample", "temperature", "top-p", "top-k"} {
		name := strings.ReplaceAll(flag, "-", "_")
		message = strings.ReplaceAll(message, name+" = ", "--"+flag+" ")
		if name != flag { // a word of English stays one
			message = strings.ReplaceAll(message, name, "--"+flag)
		}
	}
	return message
}
