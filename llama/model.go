package llama

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// Model is a Llama on a device, or sharded over several: its configuration and its packed weights.
// It is immutable until Finalize and safe for concurrent use; several generators may share it. The
// zero value is not usable.
type Model struct {
	config  Config
	own     Config // what a graph computes: on several devices, that of one
	on      *devices
	dtype   dtypes.DType
	weights []sharded // as the table of weights lists them, see onDevices
	rope    []float32 // frequencies
	packed  bool      // weights are those of a GGUF as they are, see packed.go
	files   *Files    // that it was loaded from; nil: it was made here

	calibration string // LoadOptions.Calibration
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
	if err := kvq.Supported(backend); err != nil {
		return nil, err
	}
	config.EOS = slices.Clone(config.EOS)
	return &Model{config: config, own: config.Share(n), on: on, dtype: dtype, rope: config.RotaryFrequencies()}, nil
}

// Config returns the model's configuration.
func (m *Model) Config() Config {
	c := m.config
	c.EOS = slices.Clone(c.EOS)
	return c
}

// Backend returns where the model lives.
func (m *Model) Backend() compute.Backend { return m.on.backend }

// Devices is how many of the backend's devices the model is sharded over: the first so many.
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

// observer is shown what goes from layer to layer while a graph is built; nil ones are not called.
// For tests.
type observer func(name string, n *Node)

func (o observer) see(n *Node, format string, args ...any) {
	if o != nil {
		o(fmt.Sprintf(format, args...), n)
	}
}

// hidden runs the tokens ids [B, t] (int32) through all blocks and the last norm: [B, t, hidden].
// The cache takes the tokens in and has advanced afterwards. The graph is the same with an observer
// and without.
func (m *Model) hidden(w modelNodes, ids *Node, cache kvq.Cache, seen observer) *Node {
	x := w.embedded(ids) // [B, t, hidden]
	seen.see(x, "hidden_0")
	rope := newRotation(cache.Positions(ids.Shape().Dim(1)), m.rope)
	for i, weights := range w.blocks {
		var metric *Node
		if len(w.keyMetrics) > 0 {
			metric = w.keyMetrics[i]
		}
		x = m.layer(cache, i, weights, metric, rope, x)
		if i+1 < len(w.blocks) {
			seen.see(x, "hidden_%d", i+1)
		}
	}
	cache.Advance()
	x = rmsNorm(x, w.top.vector(modelfile.FinalNorm), m.config.RMSNormEps)
	seen.see(x, "hidden_%d", len(w.blocks))
	return x
}

// layer runs x [B, t, hidden] through one layer. metric is what its keys' errors cost, see
// keyMetrics; nil where the cache needs none.
func (m *Model) layer(cache kvq.Cache, i int, weights weightNodes, metric *Node, rope rotation, x *Node) *Node {
	inputs := []*Node{rope.cos, rope.sin}
	if metric != nil {
		inputs = append(inputs, metric)
	}
	n := len(inputs)
	return cache.Through(i, x, append(inputs, weights.nodes()...), func(layer kvq.LayerCache, x *Node, in []*Node) *Node {
		if n > 2 {
			layer = keyedLayer{layer, in[2]}
		}
		return block(m.own, weights.with(in[n:]), x, rotation{in[0], in[1], m.rope}, layer)
	})
}

// embedded are the embeddings of tokens [B, t]: [B, t, hidden].
func (w modelNodes) embedded(ids *Node) *Node {
	at := Reshape(ids, ids.Shape().Dim(0), ids.Shape().Dim(1), 1)
	embed := w.top[modelfile.Embed]
	if !embed.packed() {
		return Gather(gx.Inside(embed.plain), at)
	}
	x := Gather(gx.Inside(embed.codes), at)
	scale := convert(Gather(gx.Inside(embed.scale), at), dtypes.Float32) // [B, t, hidden/32]
	wide := append(scale.Shape().Clone().Dimensions, packedGroup)
	scale = Reshape(gx.BroadcastToDims(ExpandAxes(scale, -1), wide...), x.Shape().Dimensions...)
	return Mul(convert(x, dtypes.Float32), scale)
}

// logits scores the whole vocabulary: hidden [..., hidden] -> [..., V] float32, whatever the dtype
// of the weights.
func (w modelNodes) logits(hidden *Node) *Node { return linear32(hidden, w.top[modelfile.Head]) }

// lastLogits are the logits of the newest token of each row: hidden [B, t, hidden] -> [B, V]
// float32. Rows are padded on the left, so that is the last column.
func (w modelNodes) lastLogits(hidden *Node) *Node {
	s := hidden.Shape()
	last := Slice(hidden, AxisRange(), AxisElem(-1))
	return w.logits(Reshape(last, s.Dim(0), s.Dim(2)))
}
