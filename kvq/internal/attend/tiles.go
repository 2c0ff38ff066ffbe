package attend

import (
	"slices"

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
	b, kv, n := d[0], d[1], d[2]
	tile := c.TileBlocks
	last := dims(c.Keys.Codes)[0] - tile
	unit := tile * codes.BlockTokens
	count := Div(gx.AddScalar(gx.ReduceMax(c.Used), unit-1), gx.Scalar(g, dtypes.Int32, unit))
	column := shapes.Make(dtypes.Float32, b, kv, n, 1)
	captured := append(append([]*Node{q}, c.Seen.Nodes()...), append(c.Keys.Nodes(), c.Values.Nodes()...)...)
	initial := []*Node{gx.Scalar(g, dtypes.Int32, 0), count, gx.Fill(g, column, Masked), gx.Zeros(g, column),
		gx.Zeros(g, shapes.Make(dtypes.Float32, b, kv, n, c.Value.HeadDim))}
	out := gx.LoopOver(captured, initial,
		func(st []*Node) *Node { return LessThan(st[0], st[1]) },
		func(captured, st []*Node) []*Node {
			i, count, sum := st[0], st[1], Partial{st[2], st[3], st[4]}
			q := captured[0]
			seen, arrays := c.Scores.Take(captured[1:])
			zero := gx.Scalar(i.Graph(), dtypes.Int32, 0)
			// The last tile is shifted back so that it is whole; what the tile before it covered is
			// masked.
			first := gx.MulScalar(i, tile)
			block := gx.MinScalar(first, last)
			token := gx.MulScalar(block, codes.BlockTokens)
			seen = seen.each(func(x *Node) *Node { return tileOf(x, zero, token, unit) })
			slot := Add(Iota(i.Graph(), shapes.Make(dtypes.Int32, dims(seen.Mask)...), seen.Mask.Rank()-1), token)
			before := LessThan(slot, gx.MulScalar(first, codes.BlockTokens))
			seen.Mask = Where(before, gx.Fill(i.Graph(), seen.Mask.Shape(), Masked), seen.Mask)
			keyArrays, arrays := c.Key.Take(arrays)
			valueArrays, _ := c.Value.Take(arrays)
			keys := c.Key.Decode(c.Key.Tile(keyArrays, block, tile))
			values := c.Value.Decode(c.Value.Tile(valueArrays, block, tile))
			sum = sum.Merge(c.Scores.Exact(q, keys, values, seen))
			return []*Node{gx.AddScalar(i, 1), count, sum.Max, sum.Sum, sum.Out}
		})
	return Partial{out[2], out[3], out[4]}
}

// tileOf cuts n tokens, from one (int32 scalar) on, of an array whose last axis is of tokens.
func tileOf(x, zero, token *Node, n int) *Node {
	size, from := slices.Clone(dims(x)), slices.Repeat([]*Node{zero}, x.Rank())
	size[x.Rank()-1], from[x.Rank()-1] = n, token
	return gx.DynamicSlice(x, from, size)
}
