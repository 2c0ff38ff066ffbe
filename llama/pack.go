package llama

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// pack moves the weights to the device in the order that Model.nodes takes them, matrices that multiply the same
// vector joined. Each tensor of w is freed as soon as it is packed, so one layer at a time exists twice.
func (m *Model) pack(w *Weights) error {
	packer, err := graph.NewExec(m.backend, m.config.packLayer)
	if err != nil {
		return err
	}
	defer packer.Finalize()

	keep := func(t **tensors.Tensor) error {
		if err := (*t).ToDevice(m.backend, 0); err != nil {
			return fmt.Errorf("moving a weight %s to the device: %w", (*t).Shape(), err)
		}
		m.weights = append(m.weights, *t)
		*t = nil // it is the model's now
		return nil
	}
	top := []**tensors.Tensor{&w.Embed, &w.Norm}
	if !m.config.TieEmbeddings {
		top = append(top, &w.Head)
	}
	for _, t := range top {
		if err := keep(t); err != nil {
			return err
		}
	}
	for i := range w.Layers {
		l := &w.Layers[i]
		packed, err := packer.Call(l.Q, l.K, l.V, l.Gate, l.Up)
		if err != nil {
			return fmt.Errorf("packing the weights of layer %d: %w", i, err)
		}
		for _, t := range []**tensors.Tensor{&l.Q, &l.K, &l.V, &l.Gate, &l.Up} {
			_ = (*t).FinalizeAll() // only fails when it is gone already
			*t = nil
		}
		qkv, gateUp := packed[0], packed[1]
		for _, t := range []**tensors.Tensor{&l.AttnNorm, &qkv, &l.O, &l.MLPNorm, &gateUp, &l.Down} {
			if err := keep(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// packLayer joins the matrices that multiply the same vector, because one product over more rows reads memory faster
// than three small ones:
//
//	q [H*D, hidden], k and v [K*D, hidden]  ->  [K, H/K + 2, D, hidden]
//	gate and up [intermediate, hidden]      ->  [2, intermediate, hidden]
//
// For each key/value head the rows of its query heads come first, then its key's, then its value's: a cut along K
// leaves every device whole heads with their own part of the cache.
func (c Config) packLayer(q, k, v, gate, up *graph.Node) (qkv, gateUp *graph.Node) {
	heads := func(x *graph.Node) *graph.Node { return graph.Reshape(x, c.KVHeads, -1, c.HeadDim, c.HiddenSize) }
	qkv = graph.Concatenate([]*graph.Node{heads(q), heads(k), heads(v)}, 1)
	return qkv, graph.Stack([]*graph.Node{gate, up}, 0)
}
