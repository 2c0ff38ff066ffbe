package kvq_test

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/kvqbook/kvqbook/kvq"
)

// decoder is a language model of GoMLX's layers with one layer, 2 heads of 32 and 100 tokens: ids
// [B, t] -> logits [B, t, 100]. What a cache adds to it are the four lines that name it.
func decoder(scope *model.Scope, cache kvq.Cache, inputs []*Node) []*Node {
	ids := inputs[0]
	b, t := ids.Shape().Dim(0), ids.Shape().Dim(1)
	x := layers.Embedding(scope.In("tokens"), ExpandAxes(ids, -1), dtypes.Float32, 100, 64)
	h := norm.LayerNorm(scope.In("norm"), x, -1).Done()
	heads := func(name string) *Node { // [B, K, t, D]; a rotary embedding would take cache.Positions(t)
		return TransposeAllAxes(layers.Dense(scope.In("%s", name), h, true, 2, 32), 0, 2, 1, 3)
	}
	layer := cache.Layer(0)
	layer.Append(heads("keys"), heads("values"))
	h = Reshape(TransposeAllAxes(layer.Attend(heads("queries")), 0, 2, 1, 3), b, t, 64)
	cache.Advance()
	x = Add(x, layers.Dense(scope.In("output"), h, true, 64))
	return []*Node{layers.Dense(scope.In("logits"), x, true, 100)}
}

// A quantized cache in a GoMLX model: a plan, a session of the model (decoder, above) and the store
// with its weights, a prompt, tokens. The loop runs on the device.
func ExampleSession() {
	ctx := context.Background()
	store := model.NewStore() // of a trained model; here weights are drawn at random
	plan := must(kvq.New(kvq.Tutorial(), kvq.Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 32, Capacity: 256, DType: dtypes.Float32}))
	session := must(kvq.NewSession(backend(), store, plan, decoder))
	defer session.Finalize()

	must(session.Prefill(ctx, [][]int32{{17, 42, 99, 5}}))
	tokens := must(session.Generate(ctx, kvq.Generation{MaxTokens: 150}))
	fmt.Println(len(tokens[0]), "new tokens,", session.Length(), "in the cache")

	codes := must(session.Memory()).Total()
	full := must(kvq.New(kvq.Config{}, plan.Shape())).Memory().Total()
	fmt.Println("smaller than in full precision:", codes < full)
	// Output:
	// 150 new tokens, 154 in the cache
	// smaller than in full precision: true
}

// Drafts are read in one step and the wrong ones forgotten; a prompt is read once and continued in
// several ways.
func ExampleSession_Fork() {
	ctx := context.Background()
	plan := must(kvq.New(kvq.Config{}, shapeOf(1)))
	session := must(kvq.NewSession(backend(), model.NewStore(), plan, decoder))
	defer session.Finalize()
	must(session.Prefill(ctx, [][]int32{{17, 42, 99, 5}}))

	batch := must(session.Fork(ctx, 0, 0, 0)) // its only row, three times
	defer batch.Finalize()
	tokens := must(batch.Generate(ctx, kvq.Generation{MaxTokens: 20, Sample: true, Seed: 1}))
	fmt.Println(len(tokens), "continuations of", len(tokens[0]))

	must(session.Step(ctx, [][]int32{{7, 8, 9}})) // three drafts, of which one is right
	if err := session.Crop(ctx, 2); err != nil {
		fmt.Println(err)
	}
	fmt.Println(session.Length(), "tokens;", session.Crop(ctx, 6))
	// Output:
	// 3 continuations of 20
	// 5 tokens; kvq.Session.Crop: 6 tokens, want 0 to the 5 that the cache holds
}

func shapeOf(batch int) kvq.Shape {
	return kvq.Shape{Layers: 1, Batch: batch, KVHeads: 2, HeadDim: 32, Capacity: 128, DType: dtypes.Float32}
}
