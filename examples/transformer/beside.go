package main

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/zoo/transformer/generate/sample"
	"github.com/kvqbook/kvqbook/kvq"
)

// newSession is GoMLX's transformer as a session with a cache. It takes the place of GoMLX's
// generate.Generator, whose cache is of a concrete type.
func newSession(backend compute.Backend, store *model.Store, config kvq.Config, batch, capacity int) (*kvq.Session, error) {
	plan, err := kvq.New(config, kvq.Shape{Layers: layerCount, Batch: batch, KVHeads: kvHeads, HeadDim: headDim, Capacity: capacity, DType: dtypes.Float32})
	if err != nil {
		return nil, err
	}
	return kvq.NewSession(backend, store, plan, func(scope *model.Scope, cache kvq.Cache, inputs []*graph.Node) []*graph.Node {
		return []*graph.Node{cached(scope, cache, inputs[0])}
	})
}

// sampleWith picks a session's tokens by GoMLX's own functions of sampling, in the loop on the
// device. Beam search is stepwise: see examples/decoder/beam_test.go.
func sampleWith(strategy sample.Strategy, temperature float64, topK int, topP float64) *kvq.Pick {
	return kvq.NewPick(func(in kvq.PickInputs) (token, ends *graph.Node) {
		return sample.SampleWithStrategy(random{in.Random}, in.Logits, strategy, temperature, topK, topP), nil
	})
}

// random hands the session's random numbers [B] to GoMLX's sampling, which draws one for each
// logit.
type random struct{ numbers *graph.Node }

// RandomUniform implements [sample.RNG]: the generator starts anew at every token, from the
// session's number.
func (r random) RandomUniform(g *graph.Graph, shape shapes.Shape) *graph.Node {
	bits := graph.ConvertDType(graph.Bitcast(r.numbers, dtypes.Uint32), dtypes.Uint64)
	bits = graph.Slice(bits, graph.AxisElem(0)) // rows differ by what follows
	state := graph.Concatenate([]*graph.Node{bits, graph.AddScalar(bits, 1), graph.AddScalar(bits, 2)}, 0)
	_, values := graph.RandomUniform(state, shape)
	return values
}
