package llama

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// onDevices lists the tensors of a model in the order in which its graphs take them: those outside
// the layers come first.
func onDevices(c Config) []modelfile.Tensor {
	all := c.Tensors()
	list := make([]modelfile.Tensor, 0, len(all))
	for _, ofLayers := range []bool{false, true} {
		for _, t := range all {
			if t.Role.OfLayer() == ofLayers {
				list = append(list, t)
			}
		}
	}
	return list
}

// packs says that a tensor stays as a GGUF packs it, in a model whose weights do.
func packs(t modelfile.Tensor, packed bool) bool { return packed && t.Packs != "" }

// arrays are how a tensor of the table lies on n devices: a plain one is one array; see packed.go
// for the others.
func arrays(t modelfile.Tensor, dtype dtypes.DType, n int, packed bool) []layout {
	dims := t.Dims(n)
	if !packs(t, packed) {
		return []layout{{shapes.Make(dtype, dims...), t.Cut}}
	}
	rows, in := 1, dims[len(dims)-1]
	for _, d := range dims[:len(dims)-1] {
		rows *= d
	}
	groups := in / packedGroup
	scale := shapes.Make(dtypes.Float16, groups, rows)
	if t.Packs == modelfile.Q4 {
		return wholes(shapes.Make(dtypes.Uint32, groups, 4, rows), scale, scale)
	}
	return wholes(shapes.Make(dtypes.Int8, rows, in), shapes.Make(dtypes.Float16, rows, groups),
		shapes.Make(dtypes.Uint32, groups, 8, rows), scale)
}

// weightNodes are tensors of the model as nodes, by their roles; one that the model does not have
// is zero.
type weightNodes [modelfile.Roles]matrix

// take takes a tensor's arrays off the front of a graph's parameters and returns the rest.
func (w *weightNodes) take(t modelfile.Tensor, packed bool, parameters []*Node) (rest []*Node) {
	next := func() *Node {
		n := parameters[0]
		parameters = parameters[1:]
		return n
	}
	dims := t.Dims(1)
	out := dims[:len(dims)-1]
	switch {
	case !packs(t, packed):
		w[t.Role] = matrix{plain: next()}
	case t.Packs == modelfile.Q4:
		w[t.Role] = matrix{codes: next(), scale: next(), min: next(), out: out}
	default:
		w[t.Role] = matrix{codes: next(), scale: next()}
		w[modelfile.Head] = matrix{codes: next(), scale: next(), out: out}
	}
	return parameters
}

// tie makes the embedding the head where the model has it and no head of its own.
func (w *weightNodes) tie() {
	if !w.has(modelfile.Head) {
		w[modelfile.Head] = w[modelfile.Embed]
	}
}

// vector is a tensor that is used elementwise, as a value of the function that is being built.
func (w *weightNodes) vector(role modelfile.Role) *Node { return gx.Inside(w[role].plain) }

// has says whether the model has such a tensor.
func (w *weightNodes) has(role modelfile.Role) bool {
	return w[role].plain != nil || w[role].codes != nil
}

// nodes are all arrays as a list.
func (w *weightNodes) nodes() []*Node {
	var list []*Node
	for _, n := range w.arrays() {
		list = append(list, *n)
	}
	return list
}

// with has other nodes in their places.
func (w weightNodes) with(nodes []*Node) weightNodes {
	for i, n := range w.arrays() {
		*n = nodes[i]
	}
	return w
}

func (w *weightNodes) arrays() []**Node {
	var list []**Node
	for role := range w {
		m := &w[role]
		for _, n := range []**Node{&m.plain, &m.codes, &m.scale, &m.min} {
			if *n != nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// modelNodes are the weights as graph parameters.
type modelNodes struct {
	top    weightNodes // outside the layers; the head is the embedding where it is tied
	blocks []weightNodes
	// of each layer, see keyMetrics; empty where a cache needs none
	keyMetrics []*Node
}

// nodes takes the weights off the front of a graph's parameters and returns the rest.
func (m *Model) nodes(parameters []*Node) (w modelNodes, rest []*Node) {
	w.blocks = make([]weightNodes, m.config.Layers)
	for _, t := range onDevices(m.config) {
		to := &w.top
		if t.Role.OfLayer() {
			to = &w.blocks[t.Layer]
		}
		parameters = to.take(t, m.packed, parameters)
	}
	w.top.tie()
	return w, parameters
}

// share is a part of a model's weights, for graphs that take no others.
type share struct {
	model   *Model
	tensors []modelfile.Tensor
	at      []int // the places of their arrays in Model.weights
}

// shares are the weights outside of the layers, and those of each layer. Those of all layers have
// the same shapes.
func (m *Model) shares() (top share, layers []share) {
	top, layers = share{model: m}, make([]share, m.config.Layers)
	at := 0
	for _, t := range onDevices(m.config) {
		to := &top
		if t.Role.OfLayer() {
			to = &layers[t.Layer]
			to.model = m
		}
		to.tensors = append(to.tensors, t)
		for range arrays(t, m.dtype, m.on.n, m.packed) {
			to.at = append(to.at, at)
			at++
		}
	}
	return top, layers
}

// layouts say how the arrays lie, in the order in which a graph takes them.
func (s share) layouts() (list []layout) {
	for _, t := range s.tensors {
		list = append(list, arrays(t, s.model.dtype, s.model.on.n, s.model.packed)...)
	}
	return list
}

// nodes takes the arrays off the front of a graph's parameters and returns the rest.
func (s share) nodes(parameters []*Node) (w weightNodes, rest []*Node) {
	for _, t := range s.tensors {
		parameters = w.take(t, s.model.packed, parameters)
	}
	w.tie()
	return w, parameters
}

// arguments are the arrays, followed by others.
func (s share) arguments(more ...any) []any {
	list := make([]any, 0, len(s.at)+len(more))
	for _, i := range s.at {
		list = append(list, s.model.weights[i])
	}
	return append(list, more...)
}

// weightLayouts lists how the arrays of all weights lie on the devices, in the order in which
// graphs take them. A model need not be loaded for it.
func (m *Model) weightLayouts() []layout {
	return weightLayouts(m.config, m.dtype, m.on.n, m.packed)
}

// weightLayouts is the same for a configuration, on n devices.
func weightLayouts(c Config, dtype dtypes.DType, n int, packed bool) []layout {
	var list []layout
	for _, t := range onDevices(c) {
		list = append(list, arrays(t, dtype, n, packed)...)
	}
	return list
}
