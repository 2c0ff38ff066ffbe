package kvq

import (
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/pkg/errors"

	"github.com/kvqbook/kvqbook/internal/kvqhook"
)

func init() {
	kvqhook.CodedOfPrompt = func(plan any, tokens int) int {
		p := plan.(*Plan)
		if !p.config.Quantized() {
			return 0
		}
		return p.policy.codedAfter(tokens, 0)
	}
}

// Coded counts, for each row [B] of a live state in the order of [Cache.Nodes], the tokens that are
// kept as codes. The others are exact: all of them in a full-precision cache, in a quantized one
// those of the window and the sinks. It copies one small array from the device.
func Coded(p *Plan, state []*tensors.Tensor) ([]int, error) {
	counts := make([]int, p.shape.Batch)
	for i, a := range p.arrays() {
		if a.name != codeIndexName {
			continue
		}
		if i >= len(state) || !state[i].Shape().Equal(a.shape) {
			return nil, errors.Errorf("kvq.Coded: the state is not one of this cache: want %s at %d (%s)", a.shape, i, a.name)
		}
		index, err := tensors.CopyFlatData[int32](state[i])
		if err != nil {
			return nil, errors.WithMessage(err, "kvq.Coded")
		}
		for slot, token := range index {
			if token >= 0 {
				counts[slot/p.codeSlots]++
			}
		}
	}
	return counts, nil
}
