package fit_test

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/llama/fit"
)

// Llama-2-7B on a GPU, with a batch of 4 and a context of 4,096 tokens: what each cache takes.
func ExampleRequest_Needs() {
	llama2 := llama.Config{
		Architecture: "llama", VocabSize: 32000, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32,
		Heads: 32, KVHeads: 32, HeadDim: 128, RopeTheta: 10000, RMSNormEps: 1e-5, MaxPositions: 4096,
	}
	for _, cache := range []kvq.Config{{}, kvq.Tutorial()} {
		request := fit.Request{Model: llama2, DType: dtypes.Float16, Cache: cache, Batch: 4, Prompt: 2048, NewTokens: 2048}
		needs, err := request.Needs(false)
		if err != nil {
			panic(err)
		}
		const gib = 1 << 30
		fmt.Printf("%s: weights %.1f GiB, cache %.1f GiB\n", cache, float64(needs.Weights)/gib, float64(needs.Cache.Total())/gib)
	}
	// Output:
	// full precision: weights 12.6 GiB, cache 8.0 GiB
	// quanto 4 bit g32 r64: weights 12.6 GiB, cache 2.6 GiB
}
