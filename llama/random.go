package llama

import (
	"iter"
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// newRandom makes a model of a configuration's shapes with random weights, made on the device
// itself, for benchmarks of models whose weights are not at hand: uniform with a deviation of
// 1/sqrt(inputs), norms are 1. One seed always gives the same weights. Weights are plain.
func newRandom(backend compute.Backend, config Config, seed int64, options LoadOptions) (*Model, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	options.Weights = PlainWeights
	o, err := options.Choose(nil, !backend.HasSharedBuffers())
	if err != nil {
		return nil, err
	}
	m, err := newModel(backend, config, o.DType, o.Devices)
	if err != nil {
		return nil, err
	}
	if err := m.place(randomWeights(backend, config, o.DType, seed), func(modelfile.Weight) {}); err != nil {
		m.Finalize()
		return nil, err
	}
	return m, nil
}

// randomWeights makes weights on the backend's first device, one after the other.
func randomWeights(backend compute.Backend, config Config, dtype dtypes.DType, seed int64) iter.Seq2[loaded, error] {
	return func(yield func(loaded, error) bool) {
		state, err := RNGStateFromSeed(seed)
		if err != nil {
			yield(loaded{}, err)
			return
		}
		makers := map[string]*Exec{} // one graph a shape: the layers share them
		defer func() {
			for _, m := range makers {
				m.Finalize()
			}
		}()
		for _, w := range config.Weights() {
			shape := shapes.Make(dtype, w.Dims...)
			maker := makers[shape.String()]
			if maker == nil {
				if maker, err = NewExec(backend, func(state *Node) []*Node { return randomWeight(state, shape) }); err != nil {
					yield(loaded{}, err)
					return
				}
				makers[shape.String()] = maker
			}
			out, err := maker.Call(state)
			if err != nil {
				yield(loaded{}, err)
				return
			}
			state = out[0]
			if !yield(loaded{weight: w, tensor: out[1]}, nil) {
				return
			}
		}
	}
}

// randomWeight returns the next state of the generator and a weight.
func randomWeight(state *Node, shape shapes.Shape) []*Node {
	g := state.Graph()
	if shape.Rank() == 1 {
		return []*Node{state, gx.Ones(g, shape)}
	}
	wide := shapes.Make(dtypes.Float32, shape.Dimensions...)
	state, x := RandomUniform(state, wide)
	x = gx.MulScalar(gx.SubScalar(x, 0.5), 2*math.Sqrt(3/float64(shape.Dim(1))))
	return []*Node{state, ConvertDType(x, shape.DType)}
}
