package numbers

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// factorSteps are the steps from 0 to the largest element of a column of a packed factor.
const factorSteps = 7

// PackFactor stores a factor [B, K, D, D] of [Factor] in 4 bits an element and a byte a column, and
// without what is 0 in every one: uint8 [B, K, n+1, D], where n = (l+1)/2 and l = (D+1)/2.
//
//	line     r of l, D elements: row D-1-r from the left, and row r from the right
//	bytes    0..n-1: line r in the low 4 bits and line n+r in the high 4
//	element  8 + its value in sevenths of the largest in its column, rounded: 1..15
//	bytes    n: the largest magnitude of each column as float8 e4m3
//
// All 0 is a factor of 0. On factors of SmolLM2-135M, errors of keys cost 0.5 to 0.8 % more than
// with the factor itself (docs/bench-log.md).
func PackFactor(factor *Node) *Node {
	d := factor.Shape().Dimensions
	largest := float8Codes(gx.MinScalar(gx.ReduceMaxAndKeep(Abs(factor), 2), largestFloat8)) // [B, K, 1, D]
	step := gx.BroadcastToDims(gx.MulScalar(float8Numbers(largest), 1.0/factorSteps), d...)
	some := gx.GreaterThanScalar(step, 0)
	steps := Where(some, Div(factor, Where(some, step, gx.OnesLike(step))), gx.ZerosLike(factor))
	steps = gx.AddScalar(gx.ClampScalar(Round(steps), -factorSteps, factorSteps), factorSteps+1)
	elements := ConvertDType(foldTriangle(steps), dtypes.Uint8)

	n := nibbleLines(d[2])
	if missing := 2*n - factorLines(d[2]); missing > 0 {
		none := gx.Zeros(elements.Graph(), shapes.Make(dtypes.Uint8, d[0], d[1], missing, d[3]))
		elements = Concatenate([]*Node{elements, none}, 2)
	}
	low := Slice(elements, AxisRange(), AxisRange(), AxisRange(0, n))
	high := Slice(elements, AxisRange(), AxisRange(), AxisRange(n))
	return Concatenate([]*Node{BitwiseOr(low, gx.ShiftLeft(high, 4)), largest}, 2)
}

// PackedFactor is what PackFactor makes for heads of dim elements, with the axes of rows and heads
// that there are.
func PackedFactor(dim int, rowsAndHeads ...int) shapes.Shape {
	return shapes.Make(dtypes.Uint8, append(rowsAndHeads, nibbleLines(dim)+1, dim)...)
}

// UnpackFactor is the way back, to float32 [B, K, D, D].
func UnpackFactor(packed *Node) *Node {
	d := packed.Shape().Dimensions
	n, dim := d[2]-1, d[3]
	pairs := Slice(packed, AxisRange(), AxisRange(), AxisRange(0, n))
	elements := Concatenate([]*Node{gx.AndScalar(pairs, 0xf), gx.ShiftRight(pairs, 4)}, 2)
	elements = Slice(elements, AxisRange(), AxisRange(), AxisRange(0, factorLines(dim)))
	steps := unfoldTriangle(gx.AddScalar(ConvertDType(elements, dtypes.Float32), -(factorSteps + 1)))
	step := gx.MulScalar(float8Numbers(Slice(packed, AxisRange(), AxisRange(), AxisRange(n))), 1.0/factorSteps)
	return Mul(steps, gx.BroadcastToDims(step, steps.Shape().Dimensions...))
}

// factorLines are the lines of a folded triangle, nibbleLines those of two in a byte.
func factorLines(dim int) int { return (dim + 1) / 2 }
func nibbleLines(dim int) int { return (factorLines(dim) + 1) / 2 }

// foldTriangle lays the rows below the diagonal of [B, K, D, D] side by side, a long one and a
// short one a line: [B, K, (D+1)/2, D]. Line r holds row D-1-r from the left and row r from the
// right. The longest line has a place more than there are elements.
func foldTriangle(x *Node) *Node {
	d := x.Shape().Dimensions
	half := factorLines(d[2])
	long := Reverse(Slice(x, AxisRange(), AxisRange(), AxisRange(d[2]-half)), 2)
	short := Reverse(Slice(x, AxisRange(), AxisRange(), AxisRange(0, half)), 3)
	lines := long.Shape()
	line, place := Iota(x.Graph(), shapes.Make(dtypes.Int32, lines.Dimensions...), 2), Iota(x.Graph(), shapes.Make(dtypes.Int32, lines.Dimensions...), 3)
	return Where(LessThan(Add(line, place), gx.Fill(x.Graph(), line.Shape(), d[3]-1)), long, short)
}

// unfoldTriangle is the way back; what is not below the diagonal is 0.
func unfoldTriangle(lines *Node) *Node {
	dim := lines.Shape().Dim(3)
	rows := Concatenate([]*Node{
		Slice(Reverse(lines, 3), AxisRange(), AxisRange(), AxisRange(0, dim/2)),
		Reverse(lines, 2),
	}, 2)
	square := shapes.Make(dtypes.Int32, rows.Shape().Dimensions...)
	return Where(GreaterThan(Iota(rows.Graph(), square, 2), Iota(rows.Graph(), square, 3)), rows, gx.ZerosLike(rows))
}
