package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// generateFlags say how tokens are picked, by the tutorial's names.
type generateFlags struct {
	llama.GenerateConfig
	lastN   int  // --repeat-last-n
	nothing bool // the prompt is read and saved, and that is all
}

func (f *generateFlags) register(fs *pflag.FlagSet) {
	f.GenerateConfig = llama.GenerateConfig{MaxNewTokens: 20, Temperature: 1, TopP: 1, TopK: 50} // transformers' defaults
	fs.IntVarP(&f.MaxNewTokens, "max-new-tokens", "n", f.MaxNewTokens, "tokens to generate at most, for each prompt")
	fs.IntVar(&f.MinNewTokens, "min-new-tokens", f.MinNewTokens, "tokens before an end of sequence is allowed")
	fs.BoolVar(&f.DoSample, "do-sample", false, "draw tokens at random instead of taking the most likely one")
	fs.Float64Var(&f.Temperature, "temperature", f.Temperature, "below 1 sharper, above 1 flatter (with --do-sample)")
	fs.Float64Var(&f.TopP, "top-p", f.TopP, "draw among the most likely tokens of this probability together (with --do-sample)")
	fs.IntVar(&f.TopK, "top-k", f.TopK, "draw among so many most likely tokens, 0 for all (with --do-sample)")
	fs.Float64Var(&f.MinP, "min-p", 0, "draw among tokens at least so many times as likely as the best one, 0 for all (with --do-sample)")
	fs.Int64Var(&f.Seed, "seed", 0, "start of the random numbers (with --do-sample)")
	fs.Float64Var(&f.RepetitionPenalty, "repeat-penalty", 1, "make tokens of the text so far, the prompt included, less likely; 1 for none")
	fs.IntVar(&f.lastN, "repeat-last-n", defaultLastN, "newest tokens that --repeat-penalty looks at, as llama.cpp's; -1 for the whole text, as transformers'")
	fs.StringArrayVar(&f.StopStrings, "stop", nil, "end a text before this `string`; repeat it for several")
	cli.UnderSampling(fs, "min-new-tokens", "do-sample", "temperature", "top-p", "top-k", "min-p", "seed", "repeat-penalty", "repeat-last-n", "stop")
}

// defaultLastN is llama.cpp's.
const defaultLastN = 64

// config returns the settings, checked for a model. Sampling settings without --do-sample are the
// tutorial's own habit where they change nothing; others get a warning.
func (f *generateFlags) config(fs *pflag.FlagSet, model llama.Config, tok *tokenizer.Tokenizer, errs io.Writer) (llama.GenerateConfig, error) {
	if f.nothing {
		f.MaxNewTokens = 1 // which nobody sees
	}
	// 0 stands for a default in the library; here it was asked for.
	switch {
	case f.MaxNewTokens == 0:
		return f.GenerateConfig, usererr.New("--max-new-tokens 0, want at least 1")
	case f.DoSample && f.Temperature == 0:
		return f.GenerateConfig, usererr.New("--temperature 0, want above 0 (for the most likely token, leave --do-sample off)")
	case f.DoSample && f.TopP == 0:
		return f.GenerateConfig, usererr.New("--top-p 0, want above 0 and at most 1")
	case f.RepetitionPenalty == 0:
		return f.GenerateConfig, usererr.New("--repeat-penalty 0, want above 0 (1 for none)")
	case f.lastN < -1 || f.lastN == 0:
		return f.GenerateConfig, usererr.New("--repeat-last-n %d, want 1 or more, or -1 for the whole text", f.lastN)
	}
	f.RepetitionWindow, f.Tokenizer = max(f.lastN, 0), tok
	if err := f.Validate(model); err != nil {
		return f.GenerateConfig, usererr.New("%s", inFlagWords(err.Error()))
	}
	neutral := map[string]bool{"temperature": f.Temperature == 1, "top-p": f.TopP == 1, "top-k": f.TopK == 0 || f.TopK == 50, "min-p": f.MinP == 0}
	for _, name := range []string{"temperature", "top-p", "top-k", "min-p", "seed"} {
		if !f.DoSample && fs.Changed(name) && !neutral[name] {
			fmt.Fprintf(errs, "kvq: warning: --%s has no effect without --do-sample\n", name)
		}
	}
	if f.RepetitionPenalty == 1 && fs.Changed("repeat-last-n") {
		fmt.Fprintf(errs, "kvq: warning: --repeat-last-n has no effect without --repeat-penalty\n")
	}
	return f.GenerateConfig, nil
}

// inFlagWords replaces the names of settings, which are the tutorial's, by the flags that set them.
func inFlagWords(message string) string {
	message = strings.ReplaceAll(message, "repetition_penalty", "repeat_penalty")
	message = strings.ReplaceAll(message, "an empty stop string", `--stop ""`)
	for _, flag := range []string{"max-new-tokens", "min-new-tokens", "do-sample", "temperature", "top-p", "top-k", "min-p", "repeat-penalty"} {
		name := strings.ReplaceAll(flag, "-", "_")
		message = strings.ReplaceAll(message, name+" = ", "--"+flag+" ")
		if name != flag { // a word of English stays one
			message = strings.ReplaceAll(message, name, "--"+flag)
		}
	}
	return message
}
