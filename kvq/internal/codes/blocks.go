package codes

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Blocks are keys or values as codes, N blocks of them:
//
//	Codes   keys   uint32 [N, B, K·parts, D·bits/32/parts, 32]
//	        values uint32 [N, B, K, bits, D]
//	        (narrower words where codes do not fill these; parts: see words.go; an element a code where
//	        codes are not packed)
//	Scales  per token   [N, B, K, D/G, 32]
//	        per channel [N·32/G, B, K, D]
//	Zeros   as Scales; nil where codes have no zero point
//	Tokens  [N, B, K, 1, 32] scales of tokens beside those of channels; nil without ([Format.TokenScales])
//
// Blocks come before rows and heads, so that threads share the work evenly whatever the number of
// heads, and a new block is written in one piece.
type Blocks struct{ Codes, Scales, Zeros, Tokens *Node }

// Nodes lists the arrays there are.
func (b Blocks) Nodes() []*Node {
	list := []*Node{b.Codes, b.Scales}
	for _, x := range []*Node{b.Zeros, b.Tokens} {
		if x != nil {
			list = append(list, x)
		}
	}
	return list
}

// Take reads one Blocks off the front of a flattened state and returns the rest: the way back from
// [Blocks.Nodes].
func (f Format) Take(nodes []*Node) (Blocks, []*Node) {
	b, rest := Blocks{Codes: nodes[0], Scales: nodes[1]}, nodes[2:]
	if f.HasZeros() {
		b.Zeros, rest = rest[0], rest[1:]
	}
	if f.TokenScales {
		b.Tokens, rest = rest[0], rest[1:]
	}
	return b, rest
}

// Each applies change to every array of b.
func (b Blocks) Each(change func(x *Node) *Node) Blocks {
	return b.both(Blocks{}, func(x, _ *Node) *Node { return change(x) })
}

// both applies f to every array of b, and to the arrays of others beside it.
func (b Blocks) both(other Blocks, f func(x, y *Node) *Node) Blocks {
	out := Blocks{Codes: f(b.Codes, other.Codes), Scales: f(b.Scales, other.Scales)}
	if b.Zeros != nil {
		out.Zeros = f(b.Zeros, other.Zeros)
	}
	if b.Tokens != nil {
		out.Tokens = f(b.Tokens, other.Tokens)
	}
	return out
}

// Array is one of the arrays of blocks.
type Array struct {
	Kind  Kind
	Shape shapes.Shape
}

// Kind says what an array of blocks holds.
type Kind string

const (
	KindCodes  Kind = "codes"
	KindScales Kind = "scales"
	KindZeros  Kind = "zeros"
	KindTokens Kind = "tokenScales"
)

// Arrays are codes, scales and, where there are any, zero points and scales of tokens, in the order
// of [Blocks.Nodes]: for so many rows, heads and token slots of a cache of this dtype. Axis 0 grows
// with the tokens, axis 1 is that of rows, axis 2 that of heads.
func (f Format) Arrays(rows, heads, slots int, cache dtypes.DType) []Array {
	blocks, scaleType := slots/BlockTokens, f.Spec.Scales.DType(cache)
	matrixRows, lanes := f.Matrix()
	codes := shapes.Make(f.Spec.Quantizer.Element, blocks, rows, heads, matrixRows, lanes)
	if f.Packed {
		words := f.Words()
		codes = shapes.Make(words.DType(), blocks, rows, heads*words.Parts, f.WordsOfPart(), lanes)
	}
	scales := shapes.Make(scaleType, blocks, rows, heads, f.Groups(), BlockTokens)
	if f.PerChannel {
		scales = shapes.Make(scaleType, slots/f.Group, rows, heads, f.HeadDim)
	}
	list := []Array{{KindCodes, codes}, {KindScales, scales}}
	if f.HasZeros() {
		list = append(list, Array{KindZeros, scales})
	}
	if f.TokenScales {
		list = append(list, Array{KindTokens, shapes.Make(numbers.TokenScaleType, blocks, rows, heads, 1, BlockTokens)})
	}
	return list
}

// Write puts blocks at (block, row) of to; int32 scalars. Where groups of several blocks share a
// scale, block is the first of one.
func (f Format) Write(to, blocks Blocks, block, row *Node) Blocks {
	return to.both(blocks, func(x, y *Node) *Node {
		x = DynamicUpdateSlice(x, y, f.at(x, block, row))
		if g := y.Graph(); gx.Sharing(g) == 1 && gx.OnCUDA(g) {
			x = gx.CustomCall("LayoutConstraint", "", []*Node{x}, x.Shape())[0]
		}
		return x
	})
}

// Read cuts n blocks of one row: the shape of Encode's result for it.
func (f Format) Read(from Blocks, n int, block, row *Node) Blocks {
	return from.Each(func(x *Node) *Node {
		size := append([]int{}, dims(x)...)
		size[0], size[1] = f.entries(x, n), 1
		return gx.DynamicSlice(x, f.at(x, block, row), size)
	})
}

// Tile cuts n blocks of all rows.
func (f Format) Tile(from Blocks, block *Node, n int) Blocks {
	zero := gx.Scalar(block.Graph(), dtypes.Int32, 0)
	return from.Each(func(x *Node) *Node {
		size := append([]int{}, dims(x)...)
		size[0] = f.entries(x, n)
		return gx.DynamicSlice(x, f.at(x, block, zero), size)
	})
}

// Merge takes the tokens where fresh (bool [N*32]) from N blocks and the others from old, codes and
// scales alike. Groups must not run along tokens.
func (f Format) Merge(blocks, old Blocks, fresh *Node) Blocks {
	pick := func(x, y *Node, tokenAxis int) *Node {
		d := make([]int, x.Rank())
		for i := range d {
			d[i] = 1
		}
		d[0], d[tokenAxis] = dims(x)[0], BlockTokens
		return Where(gx.BroadcastToDims(Reshape(fresh, d...), dims(x)...), x, y)
	}
	return blocks.both(old, func(x, y *Node) *Node {
		if x != blocks.Codes {
			return pick(x, y, 4)
		}
		if !f.Packed {
			return pick(x, y, f.tokenAxis())
		}
		return f.pack(pick(f.unpack(x), f.unpack(y), f.tokenAxis()))
	})
}

// perGroup tells whether an array has one entry a token group instead of one a block.
func (f Format) perGroup(x *Node) bool { return f.PerChannel && x.Rank() == 4 }

// entries is how many entries of x's axis 0 belong to n blocks.
func (f Format) entries(x *Node, n int) int {
	if f.perGroup(x) {
		return n * BlockTokens / f.Group
	}
	return n
}

// at is where x has what belongs to (block, row).
func (f Format) at(x, block, row *Node) []*Node {
	g := block.Graph()
	zero := gx.Scalar(g, dtypes.Int32, 0)
	if f.perGroup(x) {
		return []*Node{Div(block, gx.Scalar(g, dtypes.Int32, f.Group/BlockTokens)), row, zero, zero}
	}
	return []*Node{block, row, zero, zero, zero}
}
