package kvq

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/kvqhook"
)

func init() {
	kvqhook.OneLayer = func(plan any, layer int) kvqhook.Layer { return plan.(*Plan).oneLayer(layer) }
}

// oneLayer is [kvqhook.OneLayer]. All sizes are those of the whole cache: a unit of tokens, say, is
// as large as the largest group of any layer.
func (p *Plan) oneLayer(layer int) kvqhook.Layer {
	one := p.toChange()
	one.shape = p.shape.layer(layer)
	out, kind, own := kvqhook.Layer{Plan: &one}, layerKind{window: one.shape.SlidingWindow}, len(one.shape.sides())
	if p.config.Quantized() {
		kind.plan = p.layers[layer]
		one.layers, one.flushedApart = []layerPlan{kind.plan}, true
		own = len(one.layerArrays(0))
		out.Full = p.policy.threshold()
		out.Flush = func(state []*Node) []*Node {
			c := newQuantizedCache(&one, state)
			c.flush()
			return c.Nodes()
		}
	}
	one.listState()
	out.Kind, out.Shared = kind, len(one.state)-own
	return out
}
