package llama

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// packer moves weights to the devices, a layer at a time, matrices that multiply the same vector joined. Each tensor that it is given is freed as
// soon as it is packed, so one layer at a time exists twice.
type packer struct {
	model       *Model
	join        *computation // packLayer; nil until the first layer
	top, layers []spread
}

// all packs all weights.
func (p *packer) all(w *Weights) error {
	if err := p.packTop(w); err != nil {
		return err
	}
	for i := range w.Layers {
		if err := p.packLayer(&w.Layers[i]); err != nil {
			return err
		}
	}
	return nil
}

// packTop packs what lies above and below the layers.
func (p *packer) packTop(w *Weights) error {
	// The head is not cut along the vocabulary: XLA finds the best token from pieces too, but in several small exchanges of their own, a dozen
	// where tokens are drawn, which cost more than reading a head of 32,000 rows.
	list := []**tensors.Tensor{&w.Embed, &w.Norm}
	if !p.model.config.TieEmbeddings {
		list = append(list, &w.Head)
	}
	for _, t := range list {
		if err := p.keep(&p.top, t, whole); err != nil {
			return err
		}
	}
	return nil
}

// packLayer packs the next layer.
func (p *packer) packLayer(l *LayerWeights) error {
	layer := len(p.layers) / weightsPerBlock
	var raw []spread
	defer func() { free(raw...) }()
	for _, t := range []**tensors.Tensor{&l.Q, &l.K, &l.V, &l.Gate, &l.Up} {
		if err := p.keep(&raw, t, 0); err != nil {
			return err
		}
	}
	joined, err := p.joined(raw)
	if err != nil {
		return fmt.Errorf("packing the weights of layer %d: %w", layer, err)
	}
	qkv, gateUp := joined[0], joined[1]
	for _, x := range []struct {
		done spread
		t    **tensors.Tensor
		axis int
	}{
		{t: &l.AttnNorm, axis: whole}, {done: qkv}, {t: &l.O, axis: 1},
		{t: &l.MLPNorm, axis: whole}, {done: gateUp}, {t: &l.Down, axis: 1},
	} {
		if x.t == nil {
			p.layers = append(p.layers, x.done)
		} else if err := p.keep(&p.layers, x.t, x.axis); err != nil {
			return err
		}
	}
	return nil
}

// joined runs [Config.joinLayer] on q, k, v, gate and up.
func (p *packer) joined(raw []spread) ([]spread, error) {
	args := make([]any, len(raw))
	for i, s := range raw {
		args[i] = s
	}
	if p.join == nil {
		var in []layout
		for _, s := range raw {
			in = append(in, s.layout())
		}
		var err error
		c, n := p.model.config, p.model.on.n
		p.join, err = p.model.on.compile("llama.packLayer", in, []int{0, 0}, func(in []*graph.Node) []*graph.Node {
			qkv, gateUp := c.joinLayer(in[0], in[1], in[2], in[3], in[4], n)
			return []*graph.Node{qkv, gateUp}
		})
		if err != nil {
			return nil, err
		}
	}
	return p.join.call(args...)
}

// keep places a tensor and appends it to a list.
func (p *packer) keep(list *[]spread, t **tensors.Tensor, axis int) error {
	s, err := p.model.on.place(*t, axis)
	if err != nil {
		return err
	}
	*list = append(*list, s)
	*t = nil // it is the list's now
	return nil
}

// end gives the model its weights, in the order that Model.nodes takes them, or frees them if there was an error.
func (p *packer) end(err error) (*Model, error) {
	p.model.weights = append(p.top, p.layers...)
	if p.join != nil {
		p.join.exec.Finalize()
	}
	if err != nil {
		p.model.Finalize()
		return nil, err
	}
	return p.model, nil
}

// joinLayer joins the matrices that multiply the same vector, because one product over more rows reads memory faster
// than three small ones; n is the number of devices:
//
//	q [H*D, hidden], k and v [K*D, hidden]  ->  [K, H/K + 2, D, hidden]
//	gate and up [intermediate, hidden]      ->  [n, 2, intermediate/n, hidden]
//
// For each key/value head the rows of its query heads come first, then its key's, then its value's: a cut along K
// leaves every device whole heads with their own part of the cache. Likewise each of n devices has the same rows of gate and up.
func (c Config) joinLayer(q, k, v, gate, up *graph.Node, n int) (qkv, gateUp *graph.Node) {
	heads := func(x *graph.Node) *graph.Node { return graph.Reshape(x, c.KVHeads, -1, c.HeadDim, c.HiddenSize) }
	qkv = graph.Concatenate([]*graph.Node{heads(q), heads(k), heads(v)}, 1)
	shares := func(x *graph.Node) *graph.Node { return graph.Reshape(x, n, c.IntermediateSize/n, c.HiddenSize) }
	return qkv, graph.Stack([]*graph.Node{shares(gate), shares(up)}, 1)
}
