package llama

import (
	"fmt"
	"iter"
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// place takes over plain weights, in any order, and puts them on the model's devices as the table
// of weights says. Each tensor is freed as soon as it is placed: beside what stays, one layer at a
// time exists twice. each is called after every weight.
func (m *Model) place(weights iter.Seq2[loaded, error], each func(modelfile.Weight)) error {
	p := newPlacer(m)
	defer p.finish()
	for w, err := range weights {
		if err == nil {
			err = p.add(w.weight, w.tensor)
		}
		if err != nil {
			return err
		}
		each(w.weight)
	}
	return nil
}

// placer puts weights on the devices of a model, a layer at a time.
type placer struct {
	model  *Model
	groups map[group]*waiting
	join   *computation // of one layer; nil until the first
}

// group is what is placed together: a layer, or one tensor outside the layers.
type group struct{ role, layer int }

func groupOf(role modelfile.Role, layer int) group {
	if role.OfLayer() {
		return group{-1, layer}
	}
	return group{int(role), 0}
}

// waiting is a group whose weights are not all there.
type waiting struct {
	first   int                // of its tensors, in the order of Model.weights
	tensors []modelfile.Tensor // as the table lists them
	parts   [][]*tensors.Tensor
	missing int
}

func newPlacer(m *Model) *placer {
	p := &placer{model: m, groups: map[group]*waiting{}}
	list := onDevices(m.config)
	m.weights = make([]sharded, len(list))
	for i, t := range list {
		g := p.groups[groupOf(t.Role, t.Layer)]
		if g == nil {
			g = &waiting{first: i}
			p.groups[groupOf(t.Role, t.Layer)] = g
		}
		g.tensors = append(g.tensors, t)
		g.parts = append(g.parts, make([]*tensors.Tensor, len(t.Parts)))
		g.missing += len(t.Parts)
	}
	return p
}

// add takes one weight, and places its group if it was the last one missing.
func (p *placer) add(w modelfile.Weight, tensor *tensors.Tensor) error {
	g := p.groups[groupOf(w.Role, w.Layer)]
	for i, t := range g.tensors {
		for j, part := range t.Parts {
			if part.HF == w.HF {
				g.parts[i][j] = tensor
				g.missing--
			}
		}
	}
	if g.missing > 0 {
		return nil
	}
	return p.place(g)
}

// place puts the tensors of a group on the devices, those of several parts joined.
func (p *placer) place(g *waiting) error {
	var raw []sharded
	defer func() { free(raw...) }()
	for i, t := range g.tensors {
		if len(t.Parts) > 1 {
			for j := range t.Parts {
				s, err := p.move(&g.parts[i][j], 0)
				if err != nil {
					return err
				}
				raw = append(raw, s)
			}
		}
	}
	var joined []sharded
	if raw != nil {
		var err error
		if joined, err = p.joined(g.tensors, raw); err != nil {
			return fmt.Errorf("joining the weights of layer %d: %w", g.tensors[0].Layer, err)
		}
	}
	for i, t := range g.tensors {
		if len(t.Parts) > 1 {
			p.model.weights[g.first+i], joined = joined[0], joined[1:]
			continue
		}
		s, err := p.move(&g.parts[i][0], t.Cut)
		if err != nil {
			free(joined...)
			return err
		}
		p.model.weights[g.first+i] = s
	}
	return nil
}

// move places one part; it belongs to the result afterwards.
func (p *placer) move(t **tensors.Tensor, axis int) (sharded, error) {
	s, err := p.model.on.place(*t, axis)
	*t = nil
	return s, err
}

// joined runs [Model.join] on the parts of a layer.
func (p *placer) joined(list []modelfile.Tensor, raw []sharded) ([]sharded, error) {
	args := make([]any, len(raw))
	for i, s := range raw {
		args[i] = s
	}
	if p.join == nil {
		var in []layout
		for _, s := range raw {
			in = append(in, s.layout())
		}
		list = slices.DeleteFunc(slices.Clone(list), func(t modelfile.Tensor) bool { return len(t.Parts) == 1 })
		var cuts []int
		for _, t := range list {
			cuts = append(cuts, t.Cut)
		}
		var err error
		p.join, err = p.model.on.compile("llama.join", in, cuts, func(in []*graph.Node) []*graph.Node {
			var out []*graph.Node
			for _, t := range list {
				out = append(out, p.model.join(t, in[:len(t.Parts)]))
				in = in[len(t.Parts):]
			}
			return out
		})
		if err != nil {
			return nil, err
		}
	}
	return p.join.call(args...)
}

// join interleaves the rows of several weights, or of a device's parts of them, as
// [modelfile.Tensor.Dims] says.
func (m *Model) join(t modelfile.Tensor, parts []*graph.Node) *graph.Node {
	all := layout{shapes.Make(m.dtype, t.Dims(m.on.n)...), t.Cut}
	dims := slices.Clone(m.on.part(all).Dimensions)
	dims[1] = -1
	for i, part := range parts {
		parts[i] = graph.Reshape(part, dims...)
	}
	return graph.Concatenate(parts, 1)
}

// finish frees what an error left.
func (p *placer) finish() {
	if p.join != nil {
		p.join.exec.Finalize()
	}
	for _, g := range p.groups {
		for _, t := range slices.Concat(g.parts...) {
			if t != nil {
				_ = t.FinalizeAll() // only fails when it is gone already
			}
		}
	}
}
