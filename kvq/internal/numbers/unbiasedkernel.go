package numbers

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// The search for unbiased ranges as a kernel for CUDA: a group stays in registers while all its
// candidates are tried. Graph operations write what every candidate makes of x to memory.

// launch is how a kernel is started: what a program takes of its groups or tokens, and the warps
// that run it.
type launch struct{ atOnce, warps int }

// searchLaunch is that of the search, in groups.
var searchLaunch = launch{32, 4}

// programs is how many take n of them.
func (l launch) programs(n int) int { return (n + l.atOnce - 1) / l.atOnce }

// searched is the layout of the groups of x: N of them, of size elements that lie inner apart.
type searched struct {
	n, size, inner int
	weighed        bool // errors have weights
}

func (f fitting) searched() searched {
	d := f.x.Shape().Dimensions
	s := searched{size: d[len(d)+f.axis], inner: 1}
	for _, n := range d[len(d)+f.axis+1:] {
		s.inner *= n
	}
	s.n = f.x.Shape().Size() / s.size
	return s
}

// kernelTakes reports whether the kernel can search groups of so many elements in a graph: blocks
// of a kernel are powers of two.
func kernelTakes(g *Graph, size int) bool {
	return gx.RunsTriton(g) && size&(size-1) == 0 && size <= 256
}

// noVote stands in the kernel's x for elements without a vote; all others are from -1 to 1.
const noVote = 4

// byKernel finds each group's best candidate: see [fitting.atOnce].
func (f fitting) byKernel(cuts cuts, keys bool) (best *Node) {
	return f.launched(searchLaunch, cuts, keys)
}

func (f fitting) launched(l launch, cuts cuts, keys bool) (best *Node) {
	s := f.searched()
	x := Where(gx.GreaterThanScalar(f.vote, 0), f.x, gx.Fill(f.x.Graph(), f.x.Shape(), noVote))
	inputs := []*Node{x, f.low, f.high}
	if s.weighed = f.weights != nil; s.weighed {
		inputs = append(inputs, gx.BroadcastToDims(f.weights, f.x.Shape().Dimensions...))
	}
	return gx.Triton(s.kernel(l, f.bits, cuts, keys), l.warps, 1, [2]int{l.programs(s.n), 1}, inputs,
		shapes.Make(dtypes.Int32, f.low.Shape().Dimensions...))[0]
}

// kernel writes it. Its grid is the programs of N groups.
//
//	x like [fitting].x, low, high [N] float32, perhaps weights like x -> index of the candidate [N] int32
func (s searched) kernel(l launch, bits int, cuts cuts, keys bool) *ttir.Kernel {
	t := ttir.New("unbiased_range")
	in, lows, highs := t.Pointer(ttir.F32), t.Pointer(ttir.F32), t.Pointer(ttir.F32)
	var weights ttir.Value
	if s.weighed {
		weights = t.Pointer(ttir.F32)
	}
	out := t.Pointer(ttir.I32)
	// What lies side by side in memory is along the block's last axis.
	along := 1
	if s.inner > 1 {
		along = 0
	}
	group := ttir.Min(ttir.Add(t.ProgramID(0).MulInt(l.atOnce), t.Range(l.atOnce, 0, 1)), t.Int(s.n-1))
	first := ttir.Add(group.DivInt(s.inner).MulInt(s.size*s.inner), group.RemInt(s.inner))
	each := func(v ttir.Value) ttir.Value { return v.Expand(along) } // of a group, for its elements
	place := ttir.Add(each(first), t.Range(s.size, along, 2).MulInt(s.inner))
	x := ttir.Load(in, place)
	if s.weighed {
		weights = ttir.Load(weights, place)
	}
	low, high := ttir.Load(lows, group), ttir.Load(highs, group)
	voted := ttir.LessFloat(x, t.Float(noVote/2))
	vote := ttir.Select(voted, t.Float(1), t.Float(0))
	x = ttir.Select(voted, x, t.Float(0))
	mean := ttir.Div(x.Sum(along), vote.Sum(along).AtLeast(1))
	centred := ttir.Mul(ttir.Sub(x, each(mean)), vote)
	spread := ttir.Mul(centred, centred).Sum(along)

	half := float32(int(1)<<bits-1) / 2
	width := ttir.Sub(high, low)
	best, index := t.Fill(t.Float(math.MaxFloat32), l.atOnce), t.Fill(t.Int(0), l.atOnce)
	for i := range cuts.n * cuts.n {
		part := func(n int) ttir.Value { return width.MulFloat(float32(cuts.first + float64(n)*cuts.step)) }
		from, to := ttir.Add(low, part(i/cuts.n)), ttir.Sub(high, part(i%cuts.n))
		middle, fine := ttir.Add(from, to).MulFloat(0.5), ttir.Div(ttir.Sub(to, from), t.Float(2*half))
		perStep := ttir.Div(t.Float(1), ttir.Select(ttir.LessFloat(t.Float(0), fine), fine, t.Float(1)))
		steps := ttir.Mul(ttir.Sub(x, each(middle)), each(perStep)).AddFloat(half).RoundSmall().AtLeast(0).AtMost(2 * half)
		steps = steps.AddFloat(-half)
		common := ttir.Mul(ttir.Mul(centred, steps).Sum(along), fine)
		gain := ttir.Div(spread, common.AtLeast(tiny)).AtLeast(leastGain).AtMost(mostGain)
		decoded := ttir.Add(ttir.Mul(steps, each(ttir.Mul(fine, gain))), each(middle))
		wrong := ttir.Sub(decoded, x)
		if s.weighed {
			wrong = ttir.Mul(wrong, weights)
		}
		cost := ttir.Mul(wrong, wrong)
		if keys {
			cost = ttir.Mul(cost, ttir.Max(wrong, wrong.MulFloat(-1)))
		}
		sum := ttir.Mul(cost, vote).Sum(along)
		better := ttir.LessFloat(sum, best)
		best, index = ttir.Select(better, sum, best), ttir.Select(better, t.Int(i), index)
	}
	ttir.Store(out, group, index)
	return t
}
