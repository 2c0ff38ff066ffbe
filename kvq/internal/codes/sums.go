package codes

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Products with codes that are never unpacked into memory: a sum over the rows of a block, for all
// lanes, in one pass over the words.
//
// What shares a word is added first, elementwise over all words: load, mask, convert, multiply,
// add. Then the words of a lane are added, on a GPU as a reduction, which becomes one kernel. XLA's
// CPU compiler does not vectorise a reduction over an axis that is not the last; there the words
// are added as slices, one addition each, and all of it becomes one vectorised loop over the lanes.
// Few operations in the graph matter as much as few instructions, since XLA's time to compile
// follows them (docs/benchmarks.md).

// Sums adds as the device's compiler does it best: on a CPU in loops that stay whole, on a GPU as
// reductions.
type Sums struct{ gx.WholeLoops }

// NewSums makes it for the device of length, int32 scalar of at least 0.
func NewSums(length *Node) Sums {
	if gx.OnGPU(length.Graph()) {
		return Sums{}
	}
	return Sums{gx.NewWholeLoops(gx.GreaterOrEqualScalar(length, 0))}
}

// Blocks sums over blocks, axis 0: on a CPU a few of them in one loop first.
func (o Sums) Blocks(x *Node) *Node {
	d := dims(x)
	if few := commonFactor(d[0], 8); few > 1 && o.Wanted() {
		x = o.Keep(o.SumAxis(Reshape(x, append([]int{d[0] / few, few}, d[1:]...)...), 1, 0, few))
	}
	return gx.ReduceSum(x, 0)
}

// commonFactor is the largest power of two that divides n, at most limit.
func commonFactor(n, limit int) int {
	f := 1
	for f < limit && n%(2*f) == 0 {
		f *= 2
	}
	return f
}

// sumFields adds x_k·w_k over the fields of words: all arrays come broadcast to the same shape by
// of.
func sumFields(fields []*Node, of func(k int, field *Node) (x, weight *Node)) *Node {
	var terms []*Node
	for k, field := range fields {
		x, w := of(k, field)
		terms = append(terms, Mul(x, w))
	}
	return gx.SumInChains(terms)
}

// plane is a plane of codes: its words taken apart.
type plane struct {
	fields  []*Node // of its words
	count   int     // words
	factors *Node   // [rows]
}

// planesOf are the planes of codes that are packed; codes that are not are a plane of rows of one
// field. lay brings words into the order of the sum, where they are an axis.
//
// A plane is cut out of numbers, not out of words: XLA's CPU compiler stores what a loop evaluates
// often (see [gx.MaxUses]), so a cut of words, which all fields use, would be a copy of them.
func (f Format) planesOf(codes *Node, axis int, lay func(words *Node) *Node) []plane {
	g := codes.Graph()
	if !f.Packed {
		rows, _ := f.Matrix()
		return []plane{{[]*Node{f.Spec.Numbers(lay(codes))}, rows, gx.Fill(g, shapes.Make(dtypes.Float32, rows), 1)}}
	}
	layout, words := f.Words(), lay(codes)
	var out []plane
	for _, p := range f.Planes() {
		fields := layout.fields(p.Width).Numbers(words)
		if p.Count < dims(codes)[3] {
			for i := range fields {
				fields[i] = SliceAxis(fields[i], axis, AxisRange(p.First, p.First+p.Count))
			}
		}
		out = append(out, plane{fields, p.Count, layout.factors(g, p.Width, p.Low)})
	}
	return out
}

// perBlock repeats what belongs to token groups for each of their blocks: [groups, ..] -> [n, ..].
func perBlock(x *Node, n int) *Node {
	d := dims(x)
	groups := d[0]
	if groups == n {
		return x
	}
	wide := append([]int{groups, n / groups}, d[1:]...)
	return Reshape(gx.BroadcastToDims(Reshape(x, append([]int{groups, 1}, d[1:]...)...), wide...), append([]int{n}, d[1:]...)...)
}
