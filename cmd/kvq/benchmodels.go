package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/llama"
)

// randomModels are shapes of known models, for benchmarks with random weights: far longer contexts than the models were made for.
var randomModels = map[string]llama.Config{
	"smollm2": {Architecture: "llama", VocabSize: 49152, HiddenSize: 576, IntermediateSize: 1536, Layers: 30, Heads: 9, KVHeads: 3,
		HeadDim: 64, RopeTheta: 100000, RMSNormEps: 1e-5, MaxPositions: 1 << 20, BOS: 1, EOS: []int{2}, TieEmbeddings: true},
	"llama2-7b": {Architecture: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32, Heads: 32, KVHeads: 32,
		HeadDim: 128, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 1 << 20, BOS: 1, EOS: []int{2}},
}

func randomShapes() []string { return slices.Sorted(maps.Keys(randomModels)) }

func registerRandom(fs *pflag.FlagSet, random *string) {
	fs.StringVar(random, "random", "", "random weights in the `shape` of a model: "+strings.Join(randomShapes(), ", "))
}
