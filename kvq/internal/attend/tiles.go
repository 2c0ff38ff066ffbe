package attend

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// tileRows is how many rows of D a tile has over all heads. As float32 with D = 128 they are 4 MB:
// what fits a processor's cache.
const tileRows = 8192

// TileBlocks is how many of n blocks are unpacked at once, for so many rows of heads (B·K): about
// tileRows, in whole units of so many blocks.
func TileBlocks(heads, unit, n int) int {
	tile := max(tileRows/(heads*codes.BlockTokens)/unit, 1) * unit
	return min(tile, n)
}

// tiles is attention of several tokens, tile by tile with a running maximum (FlashAttention's
// online softmax): a tile is as much as is ever unpacked.
func (c Coded) tiles(q *Node) Partial {
	g := q.Graph()
	d := dims(q) // [B, K, Q, D]
	b, kv, n, dim, t := d[0], d[1], d[2], d[3], dims(c.Mask)[1]
	tile := c.TileBlocks
	last := dims(c.Keys.Codes)[0] - tile
	unit := tile * codes.BlockTokens
	count := Div(gx.AddScalar(gx.ReduceMax(c.Used), unit-1), gx.Scalar(g, dtypes.Int32, unit))
	column := shapes.Make(dtypes.Float32, b, kv, n, 1)
	captured := append([]*Node{q, c.Mask}, append(c.Keys.Nodes(), c.Values.Nodes()...)...)
	initial := []*Node{gx.Scalar(g, dtypes.Int32, 0), count, gx.Fill(g, column, Masked), gx.Zeros(g, column),
		gx.Zeros(g, shapes.Make(dtypes.Float32, b, kv, n, dim))}
	out := gx.LoopOver(captured, initial,
		func(st []*Node) *Node { return LessThan(st[0], st[1]) },
		func(captured, st []*Node) []*Node {
			i, count, sum := st[0], st[1], Partial{st[2], st[3], st[4]}
			q, codesMask, arrays := captured[0], captured[1], captured[2:]
			zero := gx.Scalar(i.Graph(), dtypes.Int32, 0)
			// The last tile is shifted back so that it is whole; what the tile before it covered is
			// masked.
			first := gx.MulScalar(i, tile)
			block := gx.MinScalar(first, last)
			token := gx.MulScalar(block, codes.BlockTokens)
			mask := DynamicSlice(codesMask, []*Node{zero, zero, token}, []int{b, t, unit})
			slot := Add(Iota(i.Graph(), shapes.Make(dtypes.Int32, b, t, unit), 2), token)
			before := LessThan(slot, gx.MulScalar(first, codes.BlockTokens))
			mask = Where(before, gx.Fill(i.Graph(), mask.Shape(), Masked), mask)
			keyArrays, arrays := c.Key.Take(arrays)
			valueArrays, _ := c.Value.Take(arrays)
			keys := c.Key.Decode(c.Key.Tile(keyArrays, block, tile))
			values := c.Value.Decode(c.Value.Tile(valueArrays, block, tile))
			sum = sum.Merge(Exact(q, keys, values, mask))
			return []*Node{gx.AddScalar(i, 1), count, sum.Max, sum.Sum, sum.Out}
		})
	return Partial{out[2], out[3], out[4]}
}
