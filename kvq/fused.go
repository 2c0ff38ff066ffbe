package kvq

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
)

func init() {
	kvqhook.FusesPrompt = func(plan any, backend compute.Backend, heads, tokens int) bool {
		return plan.(*Plan).fusesPrompt(backend, heads, tokens)
	}
}

// fuses reports whether a layer's attention over a prompt is fused, on so many devices that share
// the graph.
func (s Shape) fuses(backend compute.Backend, devices, layer int, masked bool, queries, keys, values shapes.Shape) bool {
	return s.scores().Fuses(attend.PromptQuery{
		Device: gpu.Of(backend), Devices: devices, Backend: gx.FusesAttention(backend),
		Queries: queries, Keys: keys, Values: values,
		Window: s.window(layer), Other: s.Attention.Cross || masked,
	})
}

// fusesPrompt is [kvqhook.FusesPrompt].
func (p *Plan) fusesPrompt(backend compute.Backend, heads, tokens int) bool {
	s := p.shape
	dims := func(heads, dim int) shapes.Shape { return shapes.Make(s.DType, s.Batch, heads, tokens, dim) }
	for layer := range s.Layers {
		if !s.fuses(backend, 1, layer, false, dims(heads, s.HeadDim), dims(s.KVHeads, s.HeadDim), dims(s.KVHeads, s.valueDim())) {
			return false
		}
	}
	return true
}
