package llama

import (
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// GenerateConfig says how tokens are picked and when to stop, by the names that transformers gives these settings. It
// is plain data; the zero value with MaxNewTokens set generates greedily.
type GenerateConfig struct {
	// DoSample draws tokens at random; false takes the most likely one. The three settings below need it.
	DoSample bool
	// Temperature divides the logits: below 1 sharper, above 1 flatter. With DoSample it must be above 0.
	Temperature float64
	// TopK samples among the so many most likely tokens; 0 means no limit.
	TopK int
	// TopP samples among the most likely tokens that together hold this probability. With DoSample it must be in
	// (0, 1]; 1 means no limit.
	TopP float64
	// Seed starts the random numbers. The same seed gives the same text; each row has numbers of its own, which do not
	// depend on the other rows. 0 is a seed like any other.
	Seed int64

	// MaxNewTokens ends every row at this length. At least 1, unless Forced is given.
	MaxNewTokens int
	// MinNewTokens forbids end-of-sequence tokens before a row has so many new tokens; 0 means no minimum.
	MinNewTokens int
	// EOS are the tokens that end a row. nil means those of the model's configuration; an empty slice means none.
	EOS []tokenizer.Token
	// PadID fills rows that ended before the others; 0 means that of the model's configuration.
	PadID tokenizer.Token

	// BlockSize fixes how many tokens a call on the device generates, after the first token, which comes alone. 0 lets
	// the generator choose, so that a call takes about a quarter of a second; at most 128.
	BlockSize int

	// KeepLogits returns the logits before any processing, for every new token.
	KeepLogits bool
	// Forced gives the new tokens instead of picking them, rows of one length: with KeepLogits, what the model thinks
	// of a given text. MaxNewTokens, MinNewTokens and EOS are not used then.
	Forced [][]tokenizer.Token
}

// DefaultGenerateConfig returns greedy generation of 20 tokens, with the sampling settings of transformers filled in
// for when DoSample is set: temperature 1, top_p 1, top_k 50.
func DefaultGenerateConfig() GenerateConfig {
	return GenerateConfig{Temperature: 1, TopP: 1, TopK: 50, MaxNewTokens: 20}
}

// Validate checks the settings for a model. Its error is one line: what was wanted, what came.
func (gc GenerateConfig) Validate(c Config) error {
	if gc.Forced == nil && gc.MaxNewTokens < 1 {
		return usererr.New("max_new_tokens = %d, want at least 1", gc.MaxNewTokens)
	}
	if gc.MinNewTokens < 0 || gc.Forced == nil && gc.MinNewTokens > gc.MaxNewTokens {
		return usererr.New("min_new_tokens = %d, want 0 to max_new_tokens = %d", gc.MinNewTokens, gc.MaxNewTokens)
	}
	if gc.DoSample && !(gc.Temperature > 0 && gc.Temperature <= maxTemperature) { // written so that NaN fails too
		return usererr.New("temperature = %g, want above 0 (for the most likely token, leave do_sample off)", gc.Temperature)
	}
	if gc.DoSample && !(gc.TopP > 0 && gc.TopP <= 1) {
		return usererr.New("top_p = %g, want above 0 and at most 1", gc.TopP)
	}
	if gc.TopK < 0 {
		return usererr.New("top_k = %d, want 0 (no limit) or more", gc.TopK)
	}
	for _, id := range gc.EOS {
		if id < 0 || int(id) >= c.VocabSize {
			return usererr.New("eos token id %d, want 0 to %d", id, c.VocabSize-1)
		}
	}
	if gc.PadID < 0 || int(gc.PadID) >= c.VocabSize {
		return usererr.New("pad token id %d, want 0 to %d", gc.PadID, c.VocabSize-1)
	}
	if gc.BlockSize < 0 || gc.BlockSize > maxBlock {
		return usererr.New("block size %d, want 0 (chosen by time) to %d", gc.BlockSize, maxBlock)
	}
	return nil
}

// maxTemperature is far beyond use; above it, scores would underflow.
const maxTemperature = 1e6

// endings are the tokens that end a row, the model's own where none are given.
func (gc GenerateConfig) endings(c Config) (list []tokenizer.Token) {
	if gc.Forced != nil {
		return nil
	}
	if gc.EOS != nil {
		return gc.EOS
	}
	for _, id := range c.EOS {
		list = append(list, tokenizer.Token(id))
	}
	return list
}
