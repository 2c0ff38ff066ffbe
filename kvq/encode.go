package kvq

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
)

// encode is [codes.Format.EncodeFed] by a function in C where there is one.
func encode(f codes.Format, x, valid, factor *Node) codes.Blocks {
	if blocks, ok := cpukernel.Encode(f, x, nil, dims(x)[2], valid, factor); ok {
		return blocks
	}
	return f.EncodeFed(x, valid, factor)
}
