package numbers

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// kernelCase is groups along an axis of an array.
type kernelCase struct {
	dims []int
	axis int
	bits int
	keys bool

	weighed bool // an error counts as many times as its place in the group says
}

func (c kernelCase) String() string { return fmt.Sprint(c.dims, c.axis, c.bits, c.keys, c.weighed) }

var kernelCases = []kernelCase{
	{[]int{2, 3, 32}, 2, 2, true, false},         // 6 groups of neighbours: less than a program takes
	{[]int{1, 2, 40, 1, 64}, 4, 3, false, false}, // 80 groups
	{[]int{1, 3, 2, 16, 24}, 3, 4, true, false},  // groups that lie 24 apart
	{[]int{2, 1, 1, 32, 64}, 3, 3, true, false},
	{[]int{1, 3, 2, 32, 24}, 3, 2, true, true},
	{[]int{5, 128}, 1, 4, false, false},
}

// numbersOf are of a normal distribution, with outliers, constant groups and elements that have no
// vote.
func (c kernelCase) numbersOf() (x []float32, valid []bool) {
	rng := rand.New(rand.NewPCG(11, uint64(len(c.dims))))
	n := shapes.Make(dtypes.Float32, c.dims...).Size()
	for i := range n {
		v := float32(rng.NormFloat64())
		if rng.IntN(40) == 0 {
			v *= 12
		}
		if i < n/8 {
			v = 3
		}
		if rng.IntN(50) == 0 {
			v = float32(math.NaN())
		}
		x, valid = append(x, v), append(valid, rng.IntN(20) > 0)
	}
	return x, valid
}

// run calls what build makes of a fitting, with the numbers of the case.
func (c kernelCase) run(t *testing.T, backend compute.Backend, build func(f fitting) []*Node) []*tensors.Tensor {
	t.Helper()
	x, valid := c.numbersOf()
	exec := MustNewExec(backend, func(x, valid *Node) []*Node {
		x, usable := voters(x, valid)
		f, _ := fittingOf(x, c.axis, c.bits, usable)
		if c.weighed {
			f.weights = placesOf(x, c.axis)
		}
		return build(f)
	})
	defer exec.Finalize()
	return exec.MustCall(tensors.FromFlatDataAndDimensions(x, c.dims...), tensors.FromFlatDataAndDimensions(valid, c.dims...))
}

// placesOf is 1, 2, 3 ... along an axis of x, and 1 long along the last one.
func placesOf(x *Node, axis int) *Node {
	d := slices.Clone(x.Shape().Dimensions)
	d[len(d)-1] = 1
	return gx.AddScalar(Iota(x.Graph(), shapes.Make(dtypes.Float32, d...), axis), 1)
}

// requireBest checks that what was chosen for each group costs no more than the best candidate:
// costs that are equal but for rounding may be taken for one another.
func requireBest(t *testing.T, chosen []int32, costs []float32) {
	t.Helper()
	groups := len(chosen)
	for i, k := range chosen {
		least := float32(math.Inf(1))
		for at := i; at < len(costs); at += groups {
			least = min(least, costs[at])
		}
		if got := costs[int(k)*groups+i]; !(float64(got) <= float64(least)*(1+1e-4)+1e-12) {
			t.Errorf("group %d: candidate %d costs %v, the best one %v", i, k, got, least)
		}
	}
}

// The kernel, executed on the host, chooses as graph operations do.
func TestUnbiasedKernel(t *testing.T) {
	for _, c := range kernelCases {
		t.Run(c.String(), func(t *testing.T) {
			var s searched
			out := c.run(t, testbackend.XLA(t), func(f fitting) []*Node {
				s = f.searched()
				x := Where(gx.GreaterThanScalar(f.vote, 0), f.x, gx.Fill(f.x.Graph(), f.x.Shape(), noVote))
				weights := x
				if s.weighed = c.weighed; c.weighed {
					weights = gx.BroadcastToDims(f.weights, x.Shape().Dimensions...)
				}
				return []*Node{x, f.low, f.high, weights, f.costs(cutsOf(c.bits, s.size, c.keys), c.keys)}
			})
			var flat [][]float32
			for _, o := range out {
				flat = append(flat, tensors.MustCopyFlatData[float32](o))
			}
			chosen := make([]int32, s.n)
			grid := [3]int{searchLaunch.programs(s.n), 1, 1}
			memory := ttir.Memory{flat[0], flat[1], flat[2]}
			if c.weighed {
				memory = append(memory, flat[3])
			}
			s.kernel(searchLaunch, c.bits, cutsOf(c.bits, s.size, c.keys), c.keys).Run(grid, append(memory, chosen))
			requireBest(t, chosen, flat[4])
			if slices.Max(chosen) == 0 {
				t.Error("no group takes another candidate than the first")
			}
		})
	}
}

// And so it does on a GPU.
func TestUnbiasedKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range kernelCases {
		t.Run(c.String(), func(t *testing.T) {
			out := c.run(t, backend, func(f fitting) []*Node {
				if !kernelTakes(f.x.Graph(), f.searched().size) {
					t.Error("the kernel does not run here")
				}
				cuts := cutsOf(c.bits, f.searched().size, c.keys)
				return []*Node{f.byKernel(cuts, c.keys), f.costs(cuts, c.keys)}
			})
			requireBest(t, tensors.MustCopyFlatData[int32](out[0]), tensors.MustCopyFlatData[float32](out[1]))
		})
	}
}
