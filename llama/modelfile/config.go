package modelfile

import (
	"math"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Config describes a model of the Llama architecture, as its own files do. It is complete: every
// field that a file may leave out has got its documented default, and Validate has accepted it. The
// zero value is not valid.
type Config struct {
	// Architecture is one of [Architectures], such as "llama" or "mistral" (a Llama whose attention
	// may look back over a window only).
	Architecture string
	// VocabSize is the number of rows of the embedding and of the output head.
	VocabSize int
	// HiddenSize is the width of the residual stream.
	HiddenSize int
	// IntermediateSize is the inner width of the gated feed-forward part.
	IntermediateSize int
	// Layers is the number of blocks.
	Layers int
	// Heads is the number of query heads (H).
	Heads int
	// KVHeads is the number of key/value heads (K); it divides Heads. Equal to Heads: plain
	// multi-head attention.
	KVHeads int
	// HeadDim is the width of one head (D), even. HiddenSize / Heads unless the files say
	// otherwise.
	HeadDim int
	// RopeTheta is the base of the rotary frequencies: 10,000 for Llama-2, 500,000 for Llama-3.
	RopeTheta float64
	// RopeScaling stretches the rotary frequencies; the zero value leaves them alone.
	RopeScaling RopeScaling
	// RMSNormEps is added to the mean square before its root is taken.
	RMSNormEps float64
	// MaxPositions is the longest context, in tokens, that the model was made for.
	MaxPositions int
	// TieEmbeddings says that the output head is the embedding itself: the files hold no tensor for
	// it.
	TieEmbeddings bool
	// SlidingWindow is the number of newest tokens that a query sees, itself included; 0 means all
	// of them.
	SlidingWindow int
	// BOS is the token that begins a sequence, -1 when the files name none.
	BOS int
	// EOS are the tokens that end a generation; empty when the files name none.
	EOS []int
	// PadID is the padding token: the files' own, else the first of EOS, else 0. Padding is masked,
	// so its value changes no result.
	PadID int
}

// RopeScaling says how rotary frequencies are stretched for contexts longer than those of the first
// training. The zero value leaves them alone. Formulas as in transformers' modeling_rope_utils.py.
type RopeScaling struct {
	// Type is "" (none), "linear" (all frequencies divided by Factor), "llama3" (only the slow
	// ones, by the wave length against OriginalMaxPositions) or "factors" (each by its own divisor,
	// as GGUF files have it).
	Type string
	// Factor divides the frequencies; at least 1. 0 when Type is "" or "factors".
	Factor float64
	// LowFreqFactor and HighFreqFactor bound the blend of "llama3": wave lengths above
	// OriginalMaxPositions / LowFreqFactor are stretched fully, those below OriginalMaxPositions /
	// HighFreqFactor not at all.
	LowFreqFactor, HighFreqFactor float64
	// OriginalMaxPositions is the context of the first training, in tokens; only for "llama3".
	OriginalMaxPositions int
	// Factors are the D/2 divisors of "factors".
	Factors []float32
}

// Limits that no model of this architecture comes near. They turn a damaged or hostile file into a
// clear line before anything is allocated by it.
const (
	maxVocab     = 1 << 24
	maxWidth     = 1 << 20
	maxLayers    = 1 << 12
	maxHeads     = 1 << 14
	maxHeadDim   = 1 << 12
	maxPositions = 1 << 28
)

// Validate checks that the fields make sense, alone and together. The error is one line that names
// the field by its name in Hugging Face's config.json, what was wanted and what came.
func (c Config) Validate() error {
	if _, err := archOf(c.Architecture); err != nil {
		return err
	}
	for _, f := range []struct {
		name       string
		value, max int
	}{
		{"vocab_size", c.VocabSize, maxVocab},
		{"hidden_size", c.HiddenSize, maxWidth},
		{"intermediate_size", c.IntermediateSize, maxWidth},
		{"num_hidden_layers", c.Layers, maxLayers},
		{"num_attention_heads", c.Heads, maxHeads},
		{"num_key_value_heads", c.KVHeads, maxHeads},
		{"head_dim", c.HeadDim, maxHeadDim},
		{"max_position_embeddings", c.MaxPositions, maxPositions},
	} {
		if f.value < 1 || f.value > f.max {
			return usererr.New("%s = %d, want 1 to %d", f.name, f.value, f.max)
		}
	}
	if c.Heads%c.KVHeads != 0 {
		return usererr.New("num_key_value_heads = %d, want a divisor of num_attention_heads = %d", c.KVHeads, c.Heads)
	}
	if c.HeadDim%2 != 0 {
		return usererr.New("head_dim = %d, want an even number: rotary embedding rotates pairs", c.HeadDim)
	}
	if c.Heads*c.HeadDim > maxWidth {
		return usererr.New("num_attention_heads x head_dim = %d x %d, want at most %d together", c.Heads, c.HeadDim, maxWidth)
	}
	if !(c.RMSNormEps > 0 && c.RMSNormEps < 1) { // written so that NaN fails too
		return usererr.New("rms_norm_eps = %g, want above 0 and below 1", c.RMSNormEps)
	}
	if !(c.RopeTheta >= 1 && c.RopeTheta <= 1e12) {
		return usererr.New("rope_theta = %g, want 1 to 1e12", c.RopeTheta)
	}
	if c.SlidingWindow < 0 || c.SlidingWindow > maxPositions {
		return usererr.New("sliding_window = %d, want 0 (none) to %d", c.SlidingWindow, maxPositions)
	}
	if err := c.RopeScaling.validate(c.HeadDim); err != nil {
		return err
	}
	return c.validateTokens()
}

func (c Config) validateTokens() error {
	if c.BOS < -1 || c.BOS >= c.VocabSize {
		return usererr.New("bos_token_id = %d, want below vocab_size = %d", c.BOS, c.VocabSize)
	}
	for _, id := range c.EOS {
		if id < 0 || id >= c.VocabSize {
			return usererr.New("eos_token_id = %d, want 0 to vocab_size - 1 = %d", id, c.VocabSize-1)
		}
	}
	if c.PadID < 0 || c.PadID >= c.VocabSize {
		return usererr.New("pad_token_id = %d, want 0 to vocab_size - 1 = %d", c.PadID, c.VocabSize-1)
	}
	return nil
}

// Names of RopeScaling.Type.
const (
	ropeLinear  = "linear"
	ropeLlama3  = "llama3"
	ropeFactors = "factors" // no name of transformers: only GGUF files have it
)

func (r RopeScaling) validate(headDim int) error {
	switch r.Type {
	case "":
		if r.Factor != 0 || r.LowFreqFactor != 0 || r.HighFreqFactor != 0 || r.OriginalMaxPositions != 0 || r.Factors != nil {
			return usererr.New("rope_scaling without a type, want %q or %q", ropeLinear, ropeLlama3)
		}
		return nil
	case ropeFactors:
		if len(r.Factors) != headDim/2 {
			return usererr.New("rope_scaling with %d factors, want %d: one for each rotary pair", len(r.Factors), headDim/2)
		}
		for i, f := range r.Factors {
			if !(f > 0 && f <= 1e6) {
				return usererr.New("rope_scaling factor %d = %g, want above 0 and at most 1e6", i, f)
			}
		}
		return nil
	case ropeLinear, ropeLlama3:
	default:
		return usererr.New("rope_scaling type %q, want %q or %q", r.Type, ropeLinear, ropeLlama3)
	}
	if !(r.Factor >= 1 && r.Factor <= 1e6) {
		return usererr.New("rope_scaling factor = %g, want 1 to 1e6", r.Factor)
	}
	if r.Type == ropeLinear {
		return nil
	}
	if !(r.LowFreqFactor > 0 && r.HighFreqFactor > r.LowFreqFactor && !math.IsInf(r.HighFreqFactor, 0)) {
		return usererr.New("rope_scaling low_freq_factor = %g and high_freq_factor = %g, want 0 < low < high",
			r.LowFreqFactor, r.HighFreqFactor)
	}
	if r.OriginalMaxPositions < 1 || r.OriginalMaxPositions > maxPositions {
		return usererr.New("rope_scaling original_max_position_embeddings = %d, want 1 to %d", r.OriginalMaxPositions, maxPositions)
	}
	return nil
}

// checkActivation refuses any gate but SiLU, the only one of this architecture.
func checkActivation(name string) error {
	if a := strings.ToLower(name); a != "silu" && a != "swish" {
		return usererr.New("hidden_act = %q, want %q", name, "silu")
	}
	return nil
}
