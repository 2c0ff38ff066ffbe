package llama

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// Model is a Llama on a device, or spread over several: its configuration and its packed weights. It is immutable until Finalize and safe for
// concurrent use; several generators may share it. The zero value is not usable.
type Model struct {
	config  Config
	on      *devices
	dtype   dtypes.DType
	weights []spread  // in the order of nodes
	rope    []float32 // frequencies
	packed  bool      // weights are those of a GGUF as they are, see packed.go
}

// ModelOption changes how NewModel works.
type ModelOption func(*modelOptions)

type modelOptions struct{ devices int }

// WithDevices spreads the model over the first n devices of the backend, which have to be able to share it: see [Config.CheckDevices].
func WithDevices(n int) ModelOption { return func(o *modelOptions) { o.devices = n } }

// NewModel takes over the weights: it packs them on the device (see joinLayer) and frees w, layer by layer, also when
// it fails. All weights must have one dtype (float32, float16 or bfloat16), in which the model then computes, and the
// shapes that the configuration implies. [Files.LoadModel] does without all weights in one place.
func NewModel(backend compute.Backend, config Config, w *Weights, options ...ModelOption) (*Model, error) {
	defer w.Finalize()
	o := modelOptions{devices: 1}
	for _, option := range options {
		option(&o)
	}
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := w.check(config); err != nil {
		return nil, err
	}
	m, err := newModel(backend, config, w.Embed.DType(), o.devices)
	if err != nil {
		return nil, err
	}
	p := packer{model: m}
	return p.end(p.all(w))
}

// newModel is a model without weights, for a valid configuration.
func newModel(backend compute.Backend, config Config, dtype dtypes.DType, n int) (*Model, error) {
	if err := config.CheckDevices(n); err != nil {
		return nil, err
	}
	on, err := newDevices(backend, n)
	if err != nil {
		return nil, err
	}
	config.EOS = slices.Clone(config.EOS)
	return &Model{config: config, on: on, dtype: dtype, rope: ropeFrequencies(config)}, nil
}

// check compares the tensors with what the configuration implies.
func (w *Weights) check(c Config) error {
	if len(w.Layers) != c.Layers {
		return usererr.New("weights of %d layers, the configuration has %d", len(w.Layers), c.Layers)
	}
	for _, p := range c.parameters() {
		t := *p.slot(w)
		if t == nil {
			return usererr.New("weights without %s, want %v", p.hf, p.dims)
		}
		if !slices.Equal(t.Shape().Dimensions, p.dims) || t.DType() != w.Embed.DType() {
			return usererr.New("weight %s is %s, want %s %v", p.hf, t.Shape(), w.Embed.DType(), p.dims)
		}
	}
	switch dtype := w.Embed.DType(); dtype {
	case dtypes.Float32, dtypes.Float16, dtypes.BFloat16:
		return nil
	default:
		return usererr.New("weights as %s, want float32, float16 or bfloat16", dtype)
	}
}

// Config returns the model's configuration.
func (m *Model) Config() Config {
	c := m.config
	c.EOS = slices.Clone(c.EOS)
	return c
}

// Backend returns where the model lives.
func (m *Model) Backend() compute.Backend { return m.on.backend }

// Devices is how many of the backend's devices the model is spread over: the first so many.
func (m *Model) Devices() int { return m.on.n }

// DType is the dtype of weights and activations.
func (m *Model) DType() dtypes.DType { return m.dtype }

// Bytes is the device memory that the weights take, on all devices together.
func (m *Model) Bytes() int64 {
	var sum int64
	for _, s := range m.weights {
		sum += s.bytes()
	}
	return sum
}

// Finalize frees the weights. The model and its generators are unusable afterwards.
func (m *Model) Finalize() {
	free(m.weights...)
	m.weights = nil
}

// modelNodes are the weights as graph parameters.
type modelNodes struct {
	embed, scale, norm *Node  // scale belongs to packed embeddings
	head               matrix // embed where it is tied
	blocks             []blockNodes
}

// weightsPerBlock is the number of fields of blockNodes.
const weightsPerBlock = 6

// nodes takes the weights off the front of a graph's parameters and returns the rest.
func (m *Model) nodes(parameters []*Node) (w modelNodes, rest []*Node) {
	take := func() *Node {
		n := parameters[0]
		parameters = parameters[1:]
		return n
	}
	if m.packed {
		m.config.packedNodes(&w, take)
		return w, parameters
	}
	w.embed, w.norm = take(), take()
	w.head = matrix{plain: w.embed}
	if !m.config.TieEmbeddings {
		w.head = matrix{plain: take()}
	}
	plain := func() matrix { return matrix{plain: take()} }
	for range m.config.Layers {
		w.blocks = append(w.blocks, blockNodes{attnNorm: take(), qkv: plain(), o: plain(), mlpNorm: take(), gateUp: plain(), down: plain()})
	}
	return w, parameters
}

// observer is shown what goes from layer to layer while a graph is built; nil ones are not called. For tests.
type observer func(name string, n *Node)

func (o observer) see(n *Node, format string, args ...any) {
	if o != nil {
		o(fmt.Sprintf(format, args...), n)
	}
}

// hidden runs the tokens ids [B, t] (int32) through all blocks and the last norm: [B, t, hidden]. The cache takes the
// tokens in and has advanced afterwards. The graph is the same with an observer and without.
func (m *Model) hidden(w modelNodes, ids *Node, cache kvq.Cache, seen observer) *Node {
	x := w.embedded(ids) // [B, t, hidden]
	seen.see(x, "hidden_0")
	rope := newRotation(cache.Positions(ids.Shape().Dim(1)), m.rope)
	for i, block := range w.blocks {
		inputs := append([]*Node{rope.cos, rope.sin}, block.nodes()...)
		x = cache.Through(i, x, inputs, func(layer kvq.LayerCache, x *Node, in []*Node) *Node {
			return m.config.block(block.with(in[2:]), x, rotation{in[0], in[1]}, layer)
		})
		if i+1 < len(w.blocks) {
			seen.see(x, "hidden_%d", i+1)
		}
	}
	cache.Advance()
	x = rmsNorm(x, inside(w.norm), m.config.RMSNormEps)
	seen.see(x, "hidden_%d", len(w.blocks))
	return x
}

// embedded are the embeddings of tokens [B, t]: [B, t, hidden].
func (w modelNodes) embedded(ids *Node) *Node {
	at := Reshape(ids, ids.Shape().Dim(0), ids.Shape().Dim(1), 1)
	x := Gather(inside(w.embed), at)
	if w.scale == nil {
		return x
	}
	scale := convert(Gather(inside(w.scale), at), dtypes.Float32) // [B, t, hidden/32]
	wide := append(scale.Shape().Clone().Dimensions, packedGroup)
	scale = Reshape(gx.BroadcastToDims(ExpandAxes(scale, -1), wide...), x.Shape().Dimensions...)
	return Mul(convert(x, dtypes.Float32), scale)
}

// logits scores the whole vocabulary: hidden [..., hidden] -> [..., V] float32, whatever the dtype of the weights.
func (w modelNodes) logits(hidden *Node) *Node { return linear32(hidden, w.head) }

// lastLogits are the logits of the newest token of each row: hidden [B, t, hidden] -> [B, V] float32. Rows are padded
// on the left, so that is the last column.
func (w modelNodes) lastLogits(hidden *Node) *Node {
	s := hidden.Shape()
	last := Slice(hidden, AxisRange(), AxisElem(-1))
	return w.logits(Reshape(last, s.Dim(0), s.Dim(2)))
}
