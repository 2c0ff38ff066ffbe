package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// coded is keys or values as codes: a whole array of the state, a block of it, or a tile.
//
//	codes  [L, B, K, N, bytes]   packed along the head dimension, see [Pack]
//	scales [L, B, K, N, D/G]     per token; [L, B, K, N/G, D] per channel
//	zeros  as scales; nil where the code is symmetric
type coded struct{ codes, scales, zeros *Node }

func (c coded) nodes() []*Node {
	if c.zeros == nil {
		return []*Node{c.codes, c.scales}
	}
	return []*Node{c.codes, c.scales, c.zeros}
}

// arrays are the shapes of coded for layers stacked layers and slots tokens a row.
func (s side) arrays(shape Shape, layers, slots int) []array {
	dims := func(dtype dtypes.DType, d1, d2 int) shapes.Shape {
		return shapes.Make(dtype, layers, shape.Batch, shape.KVHeads, d1, d2)
	}
	codes := array{"codes", roleCodes, dims(s.codeDType(), slots, PackedSize(shape.HeadDim, s.bits)), 3, 1}
	scale := array{"scales", roleScales, dims(s.scales.dtype(shape.DType), slots, s.groups(shape.HeadDim)), 3, 1}
	if s.axis == PerChannel {
		scale.shape, scale.per = dims(s.scales.dtype(shape.DType), slots/s.group, shape.HeadDim), s.group
	}
	if s.code != Affine {
		return []array{codes, scale}
	}
	zero := scale
	zero.name, zero.role = "zeros", roleZeros
	return []array{codes, scale, zero}
}

func (s side) codeDType() dtypes.DType {
	switch s.code {
	case Float8:
		return dtypes.F8E4M3FN
	case Int8:
		return dtypes.Int8
	}
	return dtypes.Uint8
}

// write puts a block of coded tokens at (layer, row, token), int32 scalars; token is a multiple of the group where groups run along
// tokens.
func (s side) write(to, block coded, layer, row, token *Node) coded {
	zero := gx.Scalar(token.Graph(), dtypes.Int32, 0)
	at := []*Node{layer, row, zero, token, zero}
	scaleAt := at
	if s.axis == PerChannel {
		scaleAt = []*Node{layer, row, zero, Div(token, gx.Scalar(token.Graph(), dtypes.Int32, s.group)), zero}
	}
	to.codes = DynamicUpdateSlice(to.codes, block.codes, at)
	to.scales = DynamicUpdateSlice(to.scales, block.scales, scaleAt)
	if to.zeros != nil {
		to.zeros = DynamicUpdateSlice(to.zeros, block.zeros, scaleAt)
	}
	return to
}

// tile cuts n tokens from token on out of one layer: every array [B, K, ..]. layer and token are int32 scalars; for per-channel groups
// token and n are multiples of the group.
func (s side) tile(from coded, layer, token *Node, n int) coded {
	zero := gx.Scalar(token.Graph(), dtypes.Int32, 0)
	cut := func(x *Node, per int) *Node {
		if x == nil {
			return nil
		}
		d := x.Shape().Dimensions
		at := token
		if per > 1 {
			at = Div(token, gx.Scalar(token.Graph(), dtypes.Int32, per))
		}
		y := DynamicSlice(x, []*Node{layer, zero, zero, at, zero}, []int{1, d[1], d[2], n / per, d[4]})
		return Reshape(y, d[1], d[2], n/per, d[4])
	}
	per := 1
	if s.axis == PerChannel {
		per = s.group
	}
	return coded{cut(from.codes, 1), cut(from.scales, per), cut(from.zeros, per)}
}
