package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

func init() {
	kvqhook.Contents = func(plan any, state []*Node) kvqhook.Held { return plan.(*Plan).contents(state) }
}

// contents is [kvqhook.Contents].
func (p *Plan) contents(state []*Node) (held kvqhook.Held) {
	wide := func(x *Node) *Node { return ConvertDType(x, dtypes.Float32) }
	if !p.config.Quantized() {
		s := p.shape
		length, start := state[0], state[1]
		slot := Iota(length.Graph(), shapes.Make(dtypes.Int32, s.Batch, s.Capacity), 1)
		index := Sub(slot, gx.BroadcastToDims(Reshape(start, s.Batch, 1), s.Batch, s.Capacity))
		seen := And(LessThan(slot, gx.BroadcastToDims(Reshape(length, 1, 1), s.Batch, s.Capacity)), gx.GreaterOrEqualScalar(index, 0))
		held.ExactIndex = Where(seen, index, gx.Fill(length.Graph(), index.Shape(), -1))
		side := func(x *Node) kvqhook.HeldSide {
			return kvqhook.HeldSide{Exact: wide(TransposeAllAxes(Reshape(x, s.KVHeads, s.Batch, s.Capacity, s.HeadDim), 1, 0, 2, 3))}
		}
		for layer := range s.Layers {
			held.Layers = append(held.Layers, kvqhook.HeldLayer{Keys: side(state[2+2*layer]), Values: side(state[3+2*layer])})
		}
		return held
	}
	c := newQuantizedCache(p, state)
	held.CodeIndex, held.ExactIndex = c.codeIndex, c.exactIndex
	side := func(f codes.Format, x codes.Blocks, exact *Node) kvqhook.HeldSide {
		decoded := f.Decode(x)
		if f.Rotate {
			decoded = numbers.Rotate(decoded)
		}
		return kvqhook.HeldSide{Codes: f.Numbers(x), Decoded: decoded, Exact: wide(exact)}
	}
	for i, l := range p.layers {
		s := c.layers[i]
		held.Layers = append(held.Layers, kvqhook.HeldLayer{Keys: side(l.key, s.key, s.exactKeys), Values: side(l.value, s.value, s.exactValues)})
	}
	return held
}
