package llama

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// LoadModel reads a model and puts it on the first n devices of the backend. With one it is [Files.LoadWeights] and then [NewModel]. With
// several every layer is cut and goes to its devices as soon as it is read: no device, and not the host either, ever holds more than one layer beside
// what stays there.
func (f *Files) LoadModel(backend compute.Backend, dtype dtypes.DType, n int, options ...LoadOption) (*Model, error) {
	if n == 1 {
		weights, err := f.LoadWeights(backend, dtype, options...)
		if err != nil {
			return nil, err
		}
		return NewModel(backend, f.config, weights)
	}
	m, err := newModel(backend, f.config, dtype, n)
	if err != nil {
		return nil, err
	}
	w := &Weights{Layers: make([]LayerWeights, f.config.Layers)}
	defer w.Finalize() // what an error left
	p := packer{model: m}
	next := 0
	err = f.load(nil, dtype, w, func() error {
		if next == len(w.Layers) || !w.Layers[next].complete() {
			return nil
		}
		next++
		return p.packLayer(&w.Layers[next-1])
	}, options)
	if err == nil {
		err = p.packTop(w)
	}
	return p.end(err)
}

// complete tells whether all tensors of a layer are there.
func (l *LayerWeights) complete() bool {
	for _, t := range l.tensors() {
		if *t == nil {
			return false
		}
	}
	return true
}
