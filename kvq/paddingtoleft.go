package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// PaddingToLeft moves the padding of rows from their ends to their beginnings, as caches have it: x
// [B, T, ...], of whose row b the first lengths[b] (int32 [B]) entries are tokens. It returns x so
// ordered, and start int32 [B], what [Plan.Init] takes: T - lengths. It is for an encoder's output,
// whose padding is mostly on the right, before keys and values are made of it.
func PaddingToLeft(x, lengths *Node) (padded, start *Node) {
	g := x.Graph()
	if x.Rank() < 2 || lengths.DType() != dtypes.Int32 || lengths.Rank() != 1 || dims(lengths)[0] != dims(x)[0] {
		exceptions.Panicf("kvq.PaddingToLeft: x %s and lengths %s, want [B, T, ...] and int32 [B]", x.Shape(), lengths.Shape())
	}
	b, t := dims(x)[0], dims(x)[1]
	column := Rem(Add(Iota(g, shapes.Make(dtypes.Int32, b, t), 1), gx.BroadcastToDims(Reshape(lengths, b, 1), b, t)), gx.Scalar(g, dtypes.Int32, t))
	return gx.TakeAt(x, column), Sub(gx.Scalar(g, dtypes.Int32, t), lengths)
}
