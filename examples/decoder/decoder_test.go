package decoder_test

import (
	"context"
	"fmt"
	"log"
	"slices"
	"sync"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // runs anywhere; or XLA, by github.com/gomlx/gomlx/backends/default
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/examples/decoder"
	"github.com/kvqbook/kvqbook/kvq"
)

// small is a model for examples, with random weights.
var small = decoder.Model{Vocabulary: 96, Positions: 256, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 32}

// backend is one for all examples.
var backend = sync.OnceValue(func() compute.Backend {
	b, err := compute.NewWithConfig("go:ops_sequential")
	check(err)
	return b
})

// newStore makes a store in which weights are drawn, the same in every run.
func newStore() *model.Store {
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(42))
	return store
}

// newSession makes a session of the small model with so many rows.
func newSession(config kvq.Config, batch int) *kvq.Session {
	plan, err := kvq.New(config, small.Shape(batch, 64))
	check(err)
	s, err := kvq.NewSession(backend(), newStore(), plan, small.Step)
	check(err)
	return s
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A model generates without a cache, where every token costs a pass over all before it, and with
// two of them. The weights are random, so its choices are close, and codes of 4 bits change them;
// package trained has a model that has learned something.
func Example() {
	prompt := []int32{17, 4, 65, 30, 11, 90, 2, 55}
	fmt.Println("no cache:", withoutCache(prompt, 8))
	for _, config := range []kvq.Config{{}, kvq.Tutorial()} {
		ctx, s := context.Background(), newSession(config, 1)
		_, err := s.Prefill(ctx, [][]int32{prompt})
		check(err)
		rows, err := s.Generate(ctx, kvq.Generation{MaxTokens: 8})
		check(err)
		fmt.Printf("%s: %v\n", config, rows[0])
		s.Finalize()
	}
	// Output:
	// no cache: [73 26 20 51 73 70 20 4]
	// full precision: [73 26 20 51 73 70 20 4]
	// quanto 4 bit g32 r64: [73 73 26 15 0 4 70 69]
}

func withoutCache(prompt []int32, n int) []int32 {
	exec, err := model.NewExec(backend(), newStore(), func(scope *model.Scope, ids *graph.Node) *graph.Node {
		return small.Logits(scope, ids)
	})
	check(err)
	tokens := slices.Clone(prompt)
	for range n {
		out, err := exec.Call([][]int32{tokens})
		check(err)
		logits := tensors.MustCopyFlatData[float32](out[0])
		tokens = append(tokens, argmax(logits[len(logits)-small.Vocabulary:]))
	}
	return tokens[len(prompt):]
}

func argmax(logits []float32) int32 {
	at := 0
	for i, x := range logits {
		if x > logits[at] {
			at = i
		}
	}
	return int32(at)
}
