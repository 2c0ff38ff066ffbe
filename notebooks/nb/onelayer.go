package nb

import (
	"fmt"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
)

// SmolLM2-135M's heads, for programs of one layer.
const queryHeads, kvHeads, headDim = 9, 3, 64

// Step is one token's step over a cache of one layer, measured: 9 query heads and 3 key/value heads
// of 64, as SmolLM2-135M has them.
type Step struct {
	Took  time.Duration // the fastest of some calls
	Cache int64         // bytes of its arrays
	Out   []float64     // what attention returned at the last call; nil for an append alone
	// by XLA's figures, in bytes: of the outputs, what takes an input's place, and what the program
	// needs beside inputs and outputs
	Reused, Temporary int64
}

// Attend measures a step that appends one token to a cache of so many made-up tokens and attends to
// all of them, in a form of attention.
func Attend(backend compute.Backend, config kvq.Config, form kvq.Form, tokens int) Step {
	return Must(runStep(backend, config, form, tokens, true, func(plan *kvq.Plan, state []*graph.Node) (next []*graph.Node, out *graph.Node) {
		cache := plan.From(state)
		layer := cache.Layer(0)
		layer.Append(wave(state[0], kvHeads), wave(state[0], kvHeads))
		out = layer.Attend(wave(state[0], queryHeads))
		cache.Advance()
		return cache.Nodes(), out
	}))
}

// AttendUnpacked is [Attend] as a plain program would do it: everything that the cache holds is
// written out in full precision first, and then read.
func AttendUnpacked(backend compute.Backend, config kvq.Config, tokens int) Step {
	return Must(runStep(backend, config, kvq.Auto, tokens, true, func(plan *kvq.Plan, state []*graph.Node) (next []*graph.Node, out *graph.Node) {
		cache := appended(plan, state)
		return cache.Nodes(), attendUnpacked(kvqhook.Contents(plan, cache.Nodes()), wave(state[0], queryHeads))
	}))
}

// Append measures a step that adds one token to a cache of so many made-up ones and nothing else.
// With inPlace XLA may write the new cache over the old one, as the library's programs have it.
func Append(backend compute.Backend, config kvq.Config, tokens int, inPlace bool) Step {
	return Must(runStep(backend, config, kvq.Auto, tokens, inPlace, func(plan *kvq.Plan, state []*graph.Node) (next []*graph.Node, out *graph.Node) {
		return appended(plan, state).Nodes(), nil
	}))
}

func appended(plan *kvq.Plan, state []*graph.Node) kvq.Cache {
	cache := plan.From(state)
	cache.Layer(0).Append(wave(state[0], kvHeads), wave(state[0], kvHeads))
	cache.Advance()
	return cache
}

// wave is a made-up query, key or value of one token: [1, heads, 1, D].
func wave(at *graph.Node, heads int) *graph.Node {
	return graph.Cos(graph.IotaFull(at.Graph(), shapes.Make(dtypes.Float32, 1, heads, 1, headDim)))
}

// build is a step as a graph: from the arrays of a cache to those that follow, and a result or nil.
type build func(plan *kvq.Plan, state []*graph.Node) (next []*graph.Node, out *graph.Node)

func runStep(backend compute.Backend, config kvq.Config, form kvq.Form, tokens int, inPlace bool, step build) (s Step, err error) {
	const calls = 40
	plan, err := kvq.New(config, kvq.Shape{Layers: 1, Batch: 1, KVHeads: kvHeads, HeadDim: headDim, Capacity: tokens + calls, DType: dtypes.Float32})
	if err != nil {
		return s, err
	}
	plan = plan.WithForm(form)
	s.Cache = plan.Memory().Total()
	state, err := call(backend, []any{int32(0)}, func(in []*graph.Node) []*graph.Node { return kvqhook.Synthetic(plan, in[0].Graph(), tokens) })
	if err != nil {
		return s, err
	}
	exec, err := graph.NewExec(backend, func(state []*graph.Node) []*graph.Node {
		if inPlace {
			gx.Reuse(state)
		}
		next, out := step(plan, state)
		if out != nil {
			next = append(next, out)
		}
		return next
	})
	if err != nil {
		return s, err
	}
	defer exec.Finalize()
	var last []*tensors.Tensor
	for i := range calls {
		args := make([]any, len(state))
		for j, t := range state {
			if args[j], err = graph.DonateTensorBuffer(t, backend, 0); err != nil {
				return s, err
			}
		}
		begin := time.Now()
		out, g, err := exec.CallWithGraphOnDevice(0, args...)
		if err != nil {
			return s, err
		}
		if _, err := tensors.CopyFlatData[int32](out[0]); err != nil { // waits for the device
			return s, err
		}
		took := time.Since(begin)
		if i == 0 {
			s.Took = took
			needs, err := gx.CompiledMemory(g)
			if err != nil {
				return s, fmt.Errorf("what XLA's program needs is unavailable: %w", err)
			}
			s.Reused, s.Temporary = needs.Reused, needs.Temporary
		}
		s.Took = min(s.Took, took)
		last, state = out[len(state):], out[:len(state)]
	}
	for _, t := range last {
		flat, err := tensors.CopyFlatData[float32](t)
		if err != nil {
			return s, err
		}
		for _, x := range flat {
			s.Out = append(s.Out, float64(x))
		}
	}
	return s, nil
}

// attendUnpacked attends to what a cache holds after all of it was written out: keys and values in
// codes, then the exact ones, as [1, K, C+E, D]. Query heads that share a key/value head stand side
// by side.
func attendUnpacked(held kvqhook.Held, query *graph.Node) *graph.Node {
	keys, values, index := held.Layers[0].Keys.Exact, held.Layers[0].Values.Exact, held.ExactIndex
	if held.CodeIndex != nil {
		keys = graph.Concatenate([]*graph.Node{held.Layers[0].Keys.Decoded, keys}, 2)
		values = graph.Concatenate([]*graph.Node{held.Layers[0].Values.Decoded, values}, 2)
		index = graph.Concatenate([]*graph.Node{held.CodeIndex, index}, 1)
	}
	queries := graph.Reshape(query, 1, kvHeads, queryHeads/kvHeads, headDim)
	scores := graph.MulScalar(graph.Einsum("bkqd,bktd->bkqt", queries, keys), 0.125) // 1/sqrt(64)
	seen := graph.GreaterOrEqual(index, graph.ZerosLike(index))                      // [1, T]; -1 is an empty slot
	seen = graph.BroadcastToShape(graph.Reshape(seen, 1, 1, 1, seen.Shape().Dimensions[1]), shapes.Make(dtypes.Bool, scores.Shape().Dimensions...))
	scores = graph.Where(seen, scores, graph.MulScalar(graph.OnesLike(scores), -1e30))
	out := graph.Einsum("bkqt,bktd->bkqd", graph.Softmax(scores, -1), values)
	return graph.Reshape(out, 1, queryHeads, 1, headDim)
}
