package nb

import (
	"slices"

	"github.com/kvqbook/kvqbook/llama"
)

// NamedConfig is a published model's configuration, as its config.json has it.
type NamedConfig struct {
	Name string
	llama.Config
}

// Published are configurations of well-known models, for questions that need no weights.
func Published() []NamedConfig {
	of := func(name, architecture string, layers, hidden, inner, heads, kvHeads, headDim, vocab int, tied bool) NamedConfig {
		return NamedConfig{name, llama.Config{Architecture: architecture, VocabSize: vocab, HiddenSize: hidden, IntermediateSize: inner,
			Layers: layers, Heads: heads, KVHeads: kvHeads, HeadDim: headDim, RopeTheta: 10000, RMSNormEps: 1e-5,
			MaxPositions: 1 << 17, TieEmbeddings: tied, BOS: -1}}
	}
	return []NamedConfig{
		of("SmolLM2-135M", "llama", 30, 576, 1536, 9, 3, 64, 49152, true),
		of("Qwen2.5-7B", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, false),
		of("Llama-3.1-8B", "llama", 32, 4096, 14336, 32, 8, 128, 128256, false),
		of("Qwen3-8B", "qwen3", 36, 4096, 12288, 32, 8, 128, 151936, false),
		of("Llama-2-7B", "llama", 32, 4096, 11008, 32, 32, 128, 32000, false),
		of("Llama-2-13B", "llama", 40, 5120, 13824, 40, 40, 128, 32000, false),
		of("Llama-2-70B", "llama", 80, 8192, 28672, 64, 8, 128, 32000, false),
	}
}

// PublishedConfig is the one of a name.
func PublishedConfig(name string) llama.Config {
	all := Published()
	return all[slices.IndexFunc(all, func(c NamedConfig) bool { return c.Name == name })].Config
}
