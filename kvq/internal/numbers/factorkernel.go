package numbers

import (
	"math/bits"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// Factor as a kernel for CUDA: a program has a whole matrix in its registers, and takes it column
// by column as the loop of [Factor] does, which would be several pieces of work a column.
//
// Most sizes of heads have a faster one, in factorpanels.go.

// largestFactor is the number of channels up to which a matrix fits.
const largestFactor = 256

// factorTaken reports whether the kernel can run in a graph.
func factorTaken(g *Graph, dim int) bool { return gx.RunsTriton(g) && dim <= largestFactor }

// wholeBlock is the power of two that dim channels take.
func wholeBlock(dim int) int { return 1 << bits.Len(uint(dim-1)) }

// factorByKernel turns m [B, K, D, D] float32 into its factor. What is not below the diagonal is of
// no meaning.
func factorByKernel(m *Node) *Node {
	d := m.Shape().Dimensions
	if panelsTake(d[3]) {
		return gx.PTX(factorByPanels(d[3]), [2]int{d[0] * d[1], 1}, []*Node{m}, m.Shape())[0]
	}
	dim, block := d[3], wholeBlock(d[3])
	warps := max(1, min(16, block*block/2048)) // 64 numbers a thread
	out := gx.Triton(factorKernel(dim), warps, 1, [2]int{d[0] * d[1], 1}, []*Node{m}, shapes.Make(dtypes.Float32, d[0], d[1], block, block))[0]
	return Slice(out, AxisRange(), AxisRange(), AxisRange(0, dim), AxisRange(0, dim))
}

// factorKernel writes it, for a grid of B·K programs. E is D, up to a power of two.
//
//	m [B·K, D, D] -> factor [B·K, E, E], float32
func factorKernel(dim int) *ttir.Kernel {
	t, block := ttir.New("factor"), wholeBlock(dim)
	in, out := t.Pointer(ttir.F32), t.Pointer(ttir.F32)
	head := t.ProgramID(0)
	row, column := t.Range(block, 0, 2), t.Range(block, 1, 2)
	most := t.Int(dim - 1)
	m := ttir.Load(in, ttir.Add(ttir.Add(head.MulInt(dim*dim), ttir.Min(row, most).MulInt(dim)), ttir.Min(column, most)))
	inside := ttir.BitAnd(ttir.LessOrEqual(row, most), ttir.LessOrEqual(column, most))
	zero := t.Float(0)
	m = ttir.Select(inside, m, zero)
	m = t.For(t.Int(0), t.Int(dim), 1, 1, []ttir.Value{m}, func(at ttir.Value, carried []ttir.Value) []ttir.Value {
		m := carried[0]
		// The matrix is symmetric, so its column is this row.
		line := ttir.Select(ttir.Equal(row, at), m, zero).Sum(0)
		index := t.Range(block, 0, 1)
		pivot := ttir.Select(ttir.Equal(index, at), line, zero).Sum(0)
		line = ttir.Select(ttir.Less(at, index), line, zero)
		below := ttir.Div(line, pivot.AtLeast(tiny)).Expand(1)
		m = ttir.Sub(m, ttir.Mul(below, line.Expand(0)))
		return []ttir.Value{ttir.Select(ttir.Equal(column, at), below, m)}
	})[0]
	ttir.Store(out, ttir.Add(ttir.Add(head.MulInt(block*block), row.MulInt(block)), column), m)
	return t
}
