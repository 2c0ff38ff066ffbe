package llama

import (
	"slices"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// GenerateConfig says how tokens are picked and when to stop, by the names that transformers gives
// these settings. It is plain data; the zero value generates 20 tokens greedily.
type GenerateConfig struct {
	// MaxNewTokens ends every row at this length; 0 means 20, as in transformers.
	MaxNewTokens int
	// MinNewTokens forbids end-of-sequence tokens before a row has so many new tokens; 0 means no
	// minimum.
	MinNewTokens int

	// StopStrings end a row's text before the first of them that comes: Result.Tokens goes on to
	// the token that completes it, as in transformers, and a [tokenizer.Stopper] cuts the text.
	// They need Tokenizer.
	StopStrings []string
	// Tokenizer says what text the new tokens are, for StopStrings.
	Tokenizer *tokenizer.Tokenizer

	// RepetitionPenalty makes tokens that stand in the text so far, the prompt included, less
	// likely: it divides their logits where these are positive, and multiplies them where not. 0
	// and 1 mean none.
	RepetitionPenalty float64
	// RepetitionWindow is how many of the newest tokens RepetitionPenalty looks at, as llama.cpp's
	// repeat-last-n; 0 means the whole text, as in transformers.
	RepetitionWindow int

	// DoSample draws tokens at random; false takes the most likely one. The five settings below
	// need it.
	DoSample bool
	// Temperature divides the logits: below 1 sharper, above 1 flatter; 0 means 1.
	Temperature float64
	// TopK samples among the so many most likely tokens; 0 means no limit. transformers' own
	// default is 50.
	TopK int
	// TopP samples among the most likely tokens that together hold this probability; 0 and 1 mean
	// no limit.
	TopP float64
	// MinP samples among the tokens that are at least so many times as likely as the best one; 0
	// means no limit.
	MinP float64
	// Seed starts the random numbers. The same seed gives the same text; each row has numbers of
	// its own, which do not depend on the other rows. 0 is a seed like any other.
	Seed int64

	// EOS are the tokens that end a row. nil means those of the model's configuration; an empty
	// slice means none.
	EOS []tokenizer.Token
	// PadID fills rows that ended before the others; nil means that of the model's configuration.
	PadID *tokenizer.Token

	// BlockSize fixes how many tokens a call on the device generates, after the first token, which
	// comes alone. 0 lets the generator choose: one where that saves compiling (on a CPU, for up to
	// 64 new tokens), else so many that a call takes about a quarter of a second; at most 128.
	BlockSize int
	// KeepLogits returns the logits before any processing, for every new token.
	KeepLogits bool
	// TeacherForced gives the new tokens instead of picking them, rows of one length: with
	// KeepLogits, what the model thinks of a given text. MaxNewTokens, MinNewTokens and EOS are not
	// used then. Package evaluate scores long texts.
	TeacherForced [][]tokenizer.Token
}

// defaultNewTokens is that of transformers.
const defaultNewTokens = 20

// resolved is gc with nothing left open.
func (gc GenerateConfig) resolved(c Config) GenerateConfig {
	if gc.MaxNewTokens == 0 {
		gc.MaxNewTokens = defaultNewTokens
	}
	if gc.Temperature == 0 {
		gc.Temperature = 1
	}
	if gc.TopP == 0 {
		gc.TopP = 1
	}
	if gc.PadID == nil {
		gc.PadID = new(tokenizer.Token(c.PadID))
	}
	switch {
	case gc.TeacherForced != nil:
		gc.EOS = nil
	case gc.EOS == nil:
		for _, id := range c.EOS {
			gc.EOS = append(gc.EOS, tokenizer.Token(id))
		}
	}
	return gc
}

// picker is the host's side of picking tokens by these settings, for so many rows.
func (gc GenerateConfig) picker(c Config, rows int) *pick.Picker {
	gc = gc.resolved(c)
	return pick.New(pick.Settings{
		EOS: gc.EOS, MinNew: gc.MinNewTokens,
		Sample: gc.DoSample, Temperature: gc.Temperature, TopK: gc.TopK, TopP: gc.TopP, MinP: gc.MinP, Seed: gc.Seed,
		Penalty: gc.RepetitionPenalty, Window: gc.RepetitionWindow,
	}, rows, c.VocabSize)
}

// Validate checks the settings for a model. Its error is one line: what was wanted, what came.
func (gc GenerateConfig) Validate(c Config) error {
	most := gc.resolved(c).MaxNewTokens
	if gc.TeacherForced == nil && most < 1 {
		return usererr.New("max_new_tokens = %d, want at least 1", most)
	}
	if gc.MinNewTokens < 0 || gc.TeacherForced == nil && gc.MinNewTokens > most {
		return usererr.New("min_new_tokens = %d, want 0 to max_new_tokens = %d", gc.MinNewTokens, most)
	}
	// written so that NaN fails too
	if gc.DoSample && !(gc.Temperature >= 0 && gc.Temperature <= maxTemperature) {
		return usererr.New("temperature = %g, want above 0 and at most %g (for the most likely token, leave do_sample off)", gc.Temperature, maxTemperature)
	}
	if gc.DoSample && !(gc.TopP >= 0 && gc.TopP <= 1) {
		return usererr.New("top_p = %g, want above 0 and at most 1", gc.TopP)
	}
	if gc.TopK < 0 {
		return usererr.New("top_k = %d, want 0 (no limit) or more", gc.TopK)
	}
	if gc.DoSample && !(gc.MinP >= 0 && gc.MinP <= 1) {
		return usererr.New("min_p = %g, want 0 (no limit) to 1", gc.MinP)
	}
	if !(gc.RepetitionPenalty >= 0 && gc.RepetitionPenalty <= maxPenalty) {
		return usererr.New("repetition_penalty = %g, want above 0 and at most %g (1 for none)", gc.RepetitionPenalty, maxPenalty)
	}
	if gc.RepetitionWindow < 0 {
		return usererr.New("repetition_window = %d, want 0 (the whole text) or more", gc.RepetitionWindow)
	}
	if slices.Contains(gc.StopStrings, "") {
		return usererr.New("an empty stop string, want some text")
	}
	if len(gc.StopStrings) > 0 && gc.Tokenizer == nil {
		return usererr.New("stop strings without a tokenizer: want GenerateConfig.Tokenizer")
	}
	for _, id := range gc.EOS {
		if id < 0 || int(id) >= c.VocabSize {
			return usererr.New("eos token id %d, want 0 to %d", id, c.VocabSize-1)
		}
	}
	if gc.PadID != nil && (*gc.PadID < 0 || int(*gc.PadID) >= c.VocabSize) {
		return usererr.New("pad token id %d, want 0 to %d", *gc.PadID, c.VocabSize-1)
	}
	if gc.BlockSize < 0 || gc.BlockSize > generate.MaxBlock {
		return usererr.New("block size %d, want 0 (chosen by time) to %d", gc.BlockSize, generate.MaxBlock)
	}
	return nil
}

// maxTemperature and maxPenalty are far beyond use; above them, scores would leave float32.
const (
	maxTemperature = 1e6
	maxPenalty     = 1e6
)
