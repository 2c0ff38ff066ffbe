package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

func init() {
	kvqhook.Synthetic = func(plan any, g *Graph, tokens int) []*Node { return plan.(*Plan).synthetic(g, tokens).Nodes() }
}

// synthetic is [kvqhook.Synthetic]. Keys and values are small numbers from a fixed pattern. Rows of
// their own lengths begin behind padding: none in the first, one slot more in each.
func (p *Plan) synthetic(g *Graph, tokens int) Cache {
	s := p.shape
	if tokens < 1 || tokens > s.Capacity {
		exceptions.Panicf("kvq: synthetic cache of %d tokens, want 1 to the capacity of %d", tokens, s.Capacity)
	}
	padding := make([]int32, s.Batch)
	for row := range padding {
		if s.OwnLengths {
			padding[row] = int32(min(row, tokens-1))
		}
	}
	start := Const(g, padding)
	var nodes []*Node
	for _, a := range p.arrays() {
		switch a.role {
		case roleLength:
			nodes = append(nodes, gx.Fill(g, a.shape, tokens))
		case roleCodes:
			nodes = append(nodes, ConvertDType(pattern(g, a.shape), a.shape.DType))
		case roleScales:
			nodes = append(nodes, p.layers[0].key.Spec.Scales.Storage(p.shape.DType).EncodeScale(gx.Fill(g, shapes.Make(dtypes.Float32, a.shape.Dimensions...), 1.0/64), 1))
		case roleTokenScales:
			nodes = append(nodes, numbers.Scale8.EncodeScale(gx.Fill(g, shapes.Make(dtypes.Float32, a.shape.Dimensions...), 1), 1))
		case roleZeros:
			nodes = append(nodes, gx.Zeros(g, a.shape))
		case roleExact:
			small := gx.MulScalar(gx.SubScalar(ConvertDType(pattern(g, a.shape), dtypes.Float32), 128), 1.0/128)
			nodes = append(nodes, ConvertDType(small, a.shape.DType))
		default:
			nodes = append(nodes, gx.Zeros(g, a.shape))
		}
	}
	c := p.cache(nodes, false)
	q, ok := c.(*quantizedCache)
	if !ok {
		c.(*fullCache).start = start
		return c
	}
	coded, next := make([]int32, s.Batch), make([]int32, s.Batch)
	for row := range coded {
		own := tokens - int(padding[row])
		coded[row] = int32(p.policy.coded(own))
		next[row] = int32(min(own, p.sinks+int(coded[row])))
	}
	q.start, q.next, q.used = start, Const(g, next), Const(g, coded)
	slot := Iota(g, q.codeIndex.Shape(), 1)
	held := LessThan(slot, gx.BroadcastToDims(Reshape(q.used, s.Batch, 1), dims(slot)...))
	q.codeIndex = Where(held, gx.AddScalar(slot, p.sinks), gx.Fill(g, slot.Shape(), -1))
	q.exactIndex = p.promptIndex(start, q.next, tokens)
	return q
}

// pattern fills a shape with whole numbers 0..255 that look mixed, int32. It divides by nothing:
// while it reads a program, StableHLO's folder looks at each of as many divisors as the array has
// numbers (FoldRemOpPattern, integerDivisorHasZeroElement), which took over a minute for a large
// cache.
func pattern(g *Graph, shape shapes.Shape) *Node {
	x := Iota(g, shapes.Make(dtypes.Int32, shape.Size()), 0)
	mixed := gx.AndScalar(Add(gx.MulScalar(x, 37), gx.MulScalar(BitwiseShiftRightLogical(x, gx.Fill(g, x.Shape(), 7)), 11)), 255)
	return Reshape(mixed, shape.Dimensions...)
}
