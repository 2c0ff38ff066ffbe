package llama

import (
	"math"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// RandomWeights makes weights of a configuration's shapes on the device itself, for benchmarks of models whose weights are not at hand:
// uniform with a deviation of 1/sqrt(inputs), norms are 1. One seed always gives the same weights.
func RandomWeights(backend compute.Backend, config Config, dtype dtypes.DType, seed int64) (*Weights, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	state, err := RNGStateFromSeed(seed)
	if err != nil {
		return nil, err
	}
	w := &Weights{Layers: make([]LayerWeights, config.Layers)}
	makers := map[string]*Exec{} // one graph a shape: the layers share them
	defer func() {
		for _, m := range makers {
			m.Finalize()
		}
	}()
	for _, p := range config.parameters() {
		shape := shapes.Make(dtype, p.dims...)
		maker := makers[shape.String()]
		if maker == nil {
			if maker, err = NewExec(backend, func(state *Node) []*Node { return randomWeight(state, shape) }); err != nil {
				w.Finalize()
				return nil, err
			}
			makers[shape.String()] = maker
		}
		out, err := maker.Call(state)
		if err != nil {
			w.Finalize()
			return nil, err
		}
		state = out[0]
		*p.slot(w) = out[1]
	}
	return w, nil
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
