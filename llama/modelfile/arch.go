package modelfile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Arch is what tells an architecture from the others: all are Llamas but for these fields. The zero
// value of each is Llama's own.
type Arch struct {
	// Name is what Config.Architecture and "model_type" in Hugging Face's config.json say.
	Name string
	// GGUF is what "general.architecture" says in GGUF files: the prefix of their keys. Two
	// architectures may share it.
	GGUF string

	// QKVBias says that queries, keys and values have a bias.
	QKVBias bool
	// HeadNorms says that each head of the queries and of the keys passes through an RMS norm
	// before its rotation.
	HeadNorms bool

	// PairedRows says that GGUF files have the rows of queries and keys in another order: rotary
	// pairs are neighbours, rows 2i and 2i+1 of a head, instead of i and i + D/2. llama.cpp's
	// converter does so for some architectures.
	PairedRows bool
	// NamesKVHeads says that a config.json without num_key_value_heads is refused; else it means as
	// many as heads.
	NamesKVHeads bool
	// HeadDim is the head dimension where config.json names none; 0 stands for hidden_size /
	// num_attention_heads.
	HeadDim int
	// window reads the sliding window of a config.json; nil: there is none, whatever the file says.
	window func(*configJSON, *Config) error
}

// architectures lists all that this module runs. Each has tiny random models in
// llama/testdata/arch, made by scripts/make-arch-goldens.py; docs/architectures.md lists them.
var architectures = []Arch{
	{Name: "llama", GGUF: "llama", PairedRows: true},
	// llama.cpp's converter writes "llama" for Mistral too.
	{Name: "mistral", GGUF: "llama", PairedRows: true, NamesKVHeads: true, window: mistralWindow},
	{Name: "qwen2", GGUF: "qwen2", QKVBias: true, NamesKVHeads: true, window: qwenWindow},
	{Name: "qwen3", GGUF: "qwen3", HeadNorms: true, NamesKVHeads: true, HeadDim: 128, window: qwenWindow},
}

// Architectures are the names that Config.Architecture may have.
func Architectures() []string {
	var names []string
	for _, a := range architectures {
		names = append(names, a.Name)
	}
	return names
}

// Arch is the architecture of a valid configuration, Llama's for others.
func (c Config) Arch() Arch {
	a, err := archOf(c.Architecture)
	if err != nil {
		return architectures[0]
	}
	return a
}

// archOf finds an architecture by the name in a config.json.
func archOf(name string) (Arch, error) {
	return findArch(name, func(a Arch) string { return a.Name })
}

// archOfGGUF finds an architecture by the name in a GGUF file.
func archOfGGUF(name string) (Arch, error) {
	return findArch(name, func(a Arch) string { return a.GGUF })
}

func findArch(name string, of func(Arch) string) (Arch, error) {
	var known []string
	for _, a := range architectures {
		if of(a) == name {
			return a, nil
		}
		if !slices.Contains(known, of(a)) {
			known = append(known, of(a))
		}
	}
	return Arch{}, usererr.New("architecture %q, want %s", name, oneOf(known))
}

// oneOf lists names for a message: "a", "b" or "c".
func oneOf(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	last := len(quoted) - 1
	if last == 0 {
		return quoted[0]
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// mistralWindow reads Mistral's sliding_window: a number, null for none, and without the field
// 4,096, as transformers' MistralConfig has it.
func mistralWindow(j *configJSON, c *Config) error {
	switch text := strings.TrimSpace(string(j.SlidingWindow)); text {
	case "":
		c.SlidingWindow = 4096
	case "null":
	default:
		var n number
		if err := n.UnmarshalJSON(j.SlidingWindow); err != nil {
			return usererr.New("field %q: %w", "sliding_window", err)
		}
		if n < 1 {
			return usererr.New("sliding_window = %d, want null (none) or 1 to %d", int(n), maxPositions)
		}
		c.SlidingWindow = int(n)
	}
	return nil
}

// qwenWindow reads Qwen's sliding window, which is used only where use_sliding_window says so, and
// only in layers from max_window_layers on. Here all layers have it or none. Defaults are those of
// transformers' Qwen2Config.
func qwenWindow(j *configJSON, c *Config) error {
	if j.UseSlidingWindow == nil || !*j.UseSlidingWindow {
		return nil
	}
	first := 28
	if j.MaxWindowLayers != nil {
		first = int(*j.MaxWindowLayers)
	}
	if first >= c.Layers {
		return nil
	}
	if first > 0 {
		return usererr.New("max_window_layers = %d with use_sliding_window, want 0 or at least num_hidden_layers = %d: "+
			"layers of several kinds are not supported", first, c.Layers)
	}
	return mistralWindow(j, c)
}
