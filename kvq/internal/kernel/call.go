package kernel

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Inputs are what the kernel reads of a layer.
type Inputs struct {
	Queries *Node // [B, K, Q, D], neither scaled nor rotated

	Position *Node // [B] int32: index in its row of the token under way

	Used, CodeIndex *Node // [B] int32: code slots in use; [B, C] int32: token in each, -1: none
	Keys, Values    codes.Blocks

	ExactIndex             *Node // [B, E] int32: token in each slot of sinks and window, -1: none
	ExactKeys, ExactValues *Node // [B, K, E, D]
}

// nodes are the inputs in the order of the kernel's parameters.
func (k Attention) nodes(in Inputs) []*Node {
	list := []*Node{in.Queries}
	if k.Key.Rotate && !k.rotatesInside() {
		list = append(list, numbers.Rotate(gx.MulScalar(attend.Float32(in.Queries), k.scoreScale())))
	}
	list = append(append(list, in.Position, in.Used, in.CodeIndex), in.Keys.Nodes()...)
	list = append(append(list, in.Values.Nodes()...), in.ExactIndex, in.ExactKeys, in.ExactValues)
	if slopes := k.Scores.Slopes; len(slopes) > 0 {
		list = append(list, ConvertDType(Const(in.Queries.Graph(), slopes), dtypes.Float32))
	}
	return list
}

// Attend is attention of single tokens over all that a layer holds.
func (k Attention) Attend(in Inputs) attend.Partial {
	results := func(outputs int, first ...int) []shapes.Shape {
		shape := func(last int) shapes.Shape {
			return shapes.Make(dtypes.Float32, append(slices.Clone(first), k.Batch, k.Heads, k.Queries, last)...)
		}
		return append([]shapes.Shape{shape(1), shape(1)}, slices.Repeat([]shapes.Shape{shape(k.width())}, outputs)...)
	}
	grid := [2]int{k.Batch * k.Heads * k.programsOfHead(), k.programs()}
	var parts []*Node
	if k.units {
		parts = gx.PTX(k.buildUnits(), grid, k.nodes(in), results(1, k.programs())...)
	} else {
		parts = gx.Triton(k.build(), k.warps, stages, grid, k.nodes(in), results(1, k.programs())...)
	}
	grid = [2]int{k.Batch * k.Heads * k.Queries, k.width() / mergeChannels}
	out := gx.Triton(k.buildMerge(), mergeWarps, stages, grid, parts, results(k.outputs())...)
	sum := attend.Partial{Max: out[0], Sum: out[1], Out: k.withoutPadding(out[2])}
	if k.outputs() > 1 {
		sum.Out = Add(numbers.Rotate(sum.Out), k.withoutPadding(out[3]))
	}
	return sum
}

// withoutPadding takes the channels out of the kernel's lanes: [B, K, Q, width] -> [B, K, Q, D].
func (k Attention) withoutPadding(x *Node) *Node {
	if k.width() == k.dim() {
		return x
	}
	groups, lanes := attend.KernelLanes(k.Value)
	x = Reshape(x, k.Batch, k.Heads, k.Queries, groups, lanes)
	x = Slice(x, AxisRange(), AxisRange(), AxisRange(), AxisRange(0, k.Value.Groups()), AxisRange(0, k.dim()/k.Value.Groups()))
	return Reshape(x, k.Batch, k.Heads, k.Queries, k.dim())
}
