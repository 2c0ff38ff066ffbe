package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// blockTokens is the unit of storage: codes of so many consecutive tokens of one head lie together.
//
// A block is a small matrix of rows and lanes, packed along the rows (see words.go):
//
//	keys    rows = the D channels, lanes = the 32 tokens
//	values  rows = the 32 tokens, lanes = the D channels
//
// Attention sums over rows in both cases (scores over channels, outputs over tokens), so the lanes are independent: one vectorised loop
// unpacks, multiplies and adds, and nothing dequantized is ever stored. 32 lanes of a byte each fill the vectors of CPUs and GPUs alike.
const blockTokens = 32

// coded is keys or values as codes, N blocks of them:
//
//	codes   keys   uint32 [N, B, K·parts, D·bits/32/parts, 32]
//	        values uint32 [N, B, K, bits, D]
//	        (narrower words where codes do not fill these; parts: see words.go; a byte a code where codes are not packed)
//	scales  per token   [N, B, K, D/G, 32]
//	        per channel [N·32/G, B, K, D]
//	zeros   as scales; nil where the code is symmetric
//
// Blocks come before rows and heads, so that threads share the work evenly whatever the number of heads, and a new block is written in
// one piece. Int8 stores int8, Float8 the bits of its numbers.
type coded struct{ codes, scales, zeros *Node }

func (c coded) nodes() []*Node {
	if c.zeros == nil {
		return []*Node{c.codes, c.scales}
	}
	return []*Node{c.codes, c.scales, c.zeros}
}

// take reads one coded off the front of a flattened state and returns the rest: the way back from nodes.
func (s side) take(nodes []*Node) (coded, []*Node) {
	if s.code != Affine {
		return coded{codes: nodes[0], scales: nodes[1]}, nodes[2:]
	}
	return coded{nodes[0], nodes[1], nodes[2]}, nodes[3:]
}

// each applies f to every array of c, and to the arrays of others beside it.
func (c coded) each(f func(x, y *Node) *Node, other coded) coded {
	out := coded{codes: f(c.codes, other.codes), scales: f(c.scales, other.scales)}
	if c.zeros != nil {
		out.zeros = f(c.zeros, other.zeros)
	}
	return out
}

// matrix is rows and lanes of a block.
func (s side) matrix(headDim int) (rows, lanes int) {
	if s.keys {
		return headDim, blockTokens
	}
	return blockTokens, headDim
}

// arrays are the shapes of coded for one layer and slots tokens a row.
func (s side) arrays(shape Shape, slots int) []array {
	rows, lanes := s.matrix(shape.HeadDim)
	blocks, scaleType := slots/blockTokens, s.scales.dtype(shape.DType)
	codes := array{"codes", roleCodes, shapes.Make(s.codeDType(), blocks, shape.Batch, shape.KVHeads, rows, lanes), 0, blockTokens}
	if s.packed() {
		l, words := s.words(shape.HeadDim), 0
		for _, width := range planes(s.bits) {
			words += l.count(width)
		}
		codes.shape = shapes.Make(l.dtype(), blocks, shape.Batch, shape.KVHeads*l.parts, words, lanes)
	}
	scale := array{"scales", roleScales, shapes.Make(scaleType, blocks, shape.Batch, shape.KVHeads, s.groups(shape.HeadDim), blockTokens), 0, blockTokens}
	if s.axis == PerChannel {
		scale.shape, scale.per = shapes.Make(scaleType, slots/s.group, shape.Batch, shape.KVHeads, shape.HeadDim), s.group
	}
	if s.code != Affine {
		return []array{codes, scale}
	}
	zero := scale
	zero.name, zero.role = "zeros", roleZeros
	return []array{codes, scale, zero}
}

// codeDType is the dtype of codes that are not packed.
func (s side) codeDType() dtypes.DType {
	switch s.code {
	case Int8:
		return dtypes.Int8
	}
	return dtypes.Uint8
}

// number gives codes that are not packed as float32.
func (s side) number(codes *Node) *Node {
	if s.code == Float8 {
		return float8Numbers(codes)
	}
	return ConvertDType(codes, dtypes.Float32)
}

// packed tells whether codes are packed bits; others are numbers of their own dtype.
func (s side) packed() bool { return !s.perHead() }

// encode turns keys or values into blocks of codes.
//
//	x      [B, K, T, D]; T is a multiple of 32, and of the group where groups run along tokens
//	valid  nil, or bool [B, T]: a token that is not valid has no vote in the range of its group
func (s side) encode(x, valid *Node) coded {
	d := dims(x)
	b, k, t, dim := d[0], d[1], d[2], d[3]
	if s.rotate {
		x = Rotate(x)
	}
	grouped, axis := []int{b, k, t, s.groups(dim), dim / s.groups(dim)}, 4
	if s.axis == PerChannel {
		grouped, axis = []int{b, k, t / s.group, s.group, dim}, 3
	}
	if valid != nil {
		split := []int{b, 1, t, 1, 1}
		if s.axis == PerChannel {
			split = []int{b, 1, t / s.group, s.group, 1}
		}
		valid = gx.BroadcastToDims(Reshape(valid, split...), grouped...)
	}
	codes, scales, zeros := s.quantize(Reshape(x, grouped...), axis, valid)
	n := t / blockTokens
	order := []int{2, 0, 1, 4, 3} // [n, B, K, D, 32]
	if !s.keys {
		order = []int{2, 0, 1, 3, 4}
	}
	codes = TransposeAllAxes(Reshape(codes, b, k, n, blockTokens, dim), order...)
	if s.packed() {
		codes = s.pack(codes, dim)
	}
	scaleBlocks := func(x *Node) *Node {
		if x == nil {
			return nil
		}
		if s.axis == PerChannel {
			return TransposeAllAxes(Reshape(x, b, k, t/s.group, dim), 2, 0, 1, 3)
		}
		return TransposeAllAxes(Reshape(x, b, k, n, blockTokens, s.groups(dim)), 2, 0, 1, 4, 3)
	}
	return coded{codes, scaleBlocks(scales), scaleBlocks(zeros)}
}

// decode is the way back: blocks -> [B, K, T, D] float32, still rotated.
func (s side) decode(x coded) *Node {
	codes := x.codes
	if s.packed() {
		codes = s.unpack(codes, s.headDim(x))
	}
	if s.keys {
		codes = swapLast(codes)
	}
	d := dims(codes) // [n, B, K, 32, D]
	n, b, k, dim := d[0], d[1], d[2], d[4]
	tokensFirst := func(x *Node) *Node { // scales beside codes [n, B, K, 32, D/G, G] or [n/…, …, B, K, 32, D]
		if s.axis == PerChannel {
			return Reshape(x, n*blockTokens/s.group, 1, b, k, 1, dim)
		}
		return Reshape(swapLast(x), n, b, k, blockTokens, s.groups(dim), 1)
	}
	shape := []int{n, b, k, blockTokens, s.groups(dim), dim / s.groups(dim)}
	if s.axis == PerChannel {
		shape = []int{n * blockTokens / s.group, s.group / blockTokens, b, k, blockTokens, dim}
	}
	scale, zero := s.scaleAndZero(x)
	full := func(x *Node) *Node { return gx.BroadcastToDims(tokensFirst(x), shape...) }
	y := Mul(s.number(Reshape(codes, shape...)), full(scale))
	if zero != nil {
		y = Add(y, full(zero))
	}
	return Reshape(TransposeAllAxes(Reshape(y, n, b, k, blockTokens, dim), 1, 2, 0, 3, 4), b, k, n*blockTokens, dim)
}

// write puts coded blocks at (block, row); int32 scalars. Where groups of several blocks share a scale, block is the first of one.
func (s side) write(to, blocks coded, block, row *Node) coded {
	return to.each(func(x, y *Node) *Node {
		x = DynamicUpdateSlice(x, y, s.at(x, block, row))
		if onCUDA(y.Graph()) {
			x = gx.CustomCall("LayoutConstraint", "", []*Node{x}, x.Shape())[0]
		}
		return x
	}, blocks)
}

// read cuts n blocks of one row: the shape of encode's result for it.
func (s side) read(from coded, n int, block, row *Node) coded {
	return from.each(func(x, _ *Node) *Node {
		size := append([]int{}, dims(x)...)
		size[0], size[1] = s.blocksOf(x, n), 1
		return DynamicSlice(x, s.at(x, block, row), size)
	}, coded{})
}

// tile cuts n blocks of all rows.
func (s side) tile(from coded, block *Node, n int) coded {
	zero := gx.Scalar(block.Graph(), dtypes.Int32, 0)
	return from.each(func(x, _ *Node) *Node {
		size := append([]int{}, dims(x)...)
		size[0] = s.blocksOf(x, n)
		return DynamicSlice(x, s.at(x, block, zero), size)
	}, coded{})
}

// perGroup tells whether an array of this side has one entry a token group instead of one a block.
func (s side) perGroup(x *Node) bool { return s.axis == PerChannel && x.Rank() == 4 }

func (s side) blocksOf(x *Node, n int) int {
	if s.perGroup(x) {
		return n * blockTokens / s.group
	}
	return n
}

func (s side) at(x, block, row *Node) []*Node {
	g := block.Graph()
	zero := gx.Scalar(g, dtypes.Int32, 0)
	if s.perGroup(x) {
		return []*Node{Div(block, gx.Scalar(g, dtypes.Int32, s.group/blockTokens)), row, zero, zero}
	}
	return []*Node{block, row, zero, zero, zero}
}

// headDim is D of coded keys or values.
func (s side) headDim(x coded) int {
	d := dims(x.codes)
	switch {
	case !s.keys:
		return d[4]
	case s.axis == PerChannel:
		return dims(x.scales)[3]
	}
	return s.group * dims(x.scales)[3]
}

func swapLast(x *Node) *Node { return Transpose(x, -1, -2) }
