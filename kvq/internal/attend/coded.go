package attend

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Coded is what attention reads of a layer's codes, N blocks of 32 tokens.
type Coded struct {
	Key, Value   codes.Format
	Keys, Values codes.Blocks

	Scores Scores
	Seen   Seen  // of N*32 slots
	Used   *Node // [B] int32: slots in use
	Length *Node // int32 scalar, not negative, that XLA cannot know

	TileBlocks int           // blocks of a tile, see tiles.go
	Functions  *gx.Functions // of the graph
}

// Attend is attention by graph operations, as Tiles or Words. Words is for a single token.
//
//	q [B, K, Q, D], scaled, any float dtype
func (c Coded) Attend(form Form, q *Node) Partial {
	q = Float32(q)
	if c.Key.Rotate {
		q = numbers.Rotate(q)
	}
	var sum Partial
	if form == Words {
		sum = c.words(q)
	} else {
		sum = c.tiles(q)
	}
	if c.Value.Rotate {
		sum.Out = numbers.Rotate(sum.Out)
	}
	return sum
}

// Float32 converts x, if it has another dtype.
func Float32(x *Node) *Node {
	if x.DType() == dtypes.Float32 {
		return x
	}
	return ConvertDType(x, dtypes.Float32)
}
