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

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/internal/ttir"
)

// fedCase is keys or values for feedback: [1, heads, tokens, channels].
type fedCase struct {
	heads, tokens, channels int
	groups                  [2]int // tokens and channels of a scale
	bits                    int
	width                   bool
}

func (c fedCase) String() string {
	return fmt.Sprint(c.shape(), c.groups, c.bits, c.width)
}

var fedCases = []fedCase{
	{1, 64, 64, [2]int{32, 1}, 2, true},
	{1, 96, 20, [2]int{32, 1}, 3, true}, // blocks of ten channels
	{2, 64, 32, [2]int{1, 16}, 4, false},
	{3, 40, 7, [2]int{1, 7}, 2, false}, // the last program has less than its tokens
	{1, 32, 1, [2]int{32, 1}, 8, false},
	{1, 64, 128, [2]int{64, 1}, 3, true},
}

func (c fedCase) shape() []int { return []int{1, c.heads, c.tokens, c.channels} }
func (c fedCase) ranges() []int {
	return []int{1, c.heads, c.tokens / c.groups[0], c.channels / c.groups[1]}
}
func (c fedCase) factors() []int { return []int{1, c.heads, c.channels, c.channels} }

// inputs are x, scale, zero, width and factor: with values that are not finite, and groups of scale
// 0.
func (c fedCase) inputs() (all [5][]float32) {
	rng := rand.New(rand.NewPCG(uint64(c.channels), uint64(c.tokens)))
	fill := func(d []int, number func() float32) (out []float32) {
		for range shapes.Make(dtypes.Float32, d...).Size() {
			out = append(out, number())
		}
		return out
	}
	all[0] = fill(c.shape(), func() float32 {
		switch rng.IntN(200) {
		case 0:
			return float32(math.NaN())
		case 1:
			return float32(math.Inf(rng.IntN(2)*2 - 1))
		case 2:
			return math.MaxFloat32
		}
		return float32(rng.NormFloat64())
	})
	steps := float64(int(1)<<c.bits - 1)
	all[1] = fill(c.ranges(), func() float32 {
		if rng.IntN(30) == 0 {
			return 0
		}
		return float32((3 + rng.Float64()) / steps)
	})
	all[2] = fill(c.ranges(), func() float32 { return float32(-1.7 + 0.2*rng.NormFloat64()) })
	all[3] = slices.Clone(all[1])
	for i := range all[3] {
		all[3][i] *= 0.9
	}
	all[4] = fill(c.factors(), func() float32 { return float32(0.15 * rng.NormFloat64()) })
	for i := range all[4] {
		if row, column := i/c.channels%c.channels, i%c.channels; column >= row {
			all[4][i] = 0
		}
	}
	return all
}

// call makes codes on a backend: by graph operations, or by the kernel.
func (c fedCase) call(t *testing.T, backend compute.Backend, in [5][]float32, byKernel bool) []uint8 {
	t.Helper()
	exec := MustNewExec(backend, func(xs []*Node) *Node {
		x, scale, zero, width, factor := xs[0], xs[1], xs[2], xs[3], xs[4]
		if !c.width {
			width = nil
		}
		if !byKernel {
			return feedbackByLoops(x, scale, zero, width, factor, c.bits)
		}
		k := fedBackOf(x, scale, width, c.bits)
		if !k.taken(x.Graph()) {
			t.Error("the kernel does not run here")
		}
		return k.call(x, scale, zero, width, factor)
	})
	defer exec.Finalize()
	dims := [][]int{c.shape(), c.ranges(), c.ranges(), c.ranges(), c.factors()}
	var args []any
	for i, d := range dims {
		args = append(args, tensors.FromFlatDataAndDimensions(in[i], d...))
	}
	return tensors.MustCopyFlatData[uint8](exec.MustCall(args...)[0])
}

// onHost makes codes by the kernel, executed on the host.
func (c fedCase) onHost(in [5][]float32, l launch) []uint8 {
	k := fedBack{heads: c.heads, tokens: c.tokens, channels: c.channels, groups: c.groups, bits: c.bits, width: c.width, launch: l}
	n := len(in[0])
	turned, codes, made := make([]float32, n), make([]uint8, n), make([]uint8, n)
	place := func(i int) int {
		head, token, d := i/(c.tokens*c.channels), i/c.channels%c.tokens, i%c.channels
		return (head*c.channels+d)*c.tokens + token
	}
	for i, v := range in[0] {
		turned[place(i)] = v
	}
	memory := ttir.Memory{turned, in[4], in[1], in[2]}
	if c.width {
		memory = append(memory, in[3])
	}
	k.kernel().Run([3]int{k.programs(), 1, 1}, append(memory, make([]float32, n), codes))
	for i := range made {
		made[i] = codes[place(i)]
	}
	return made
}

// requireCodes checks that codes differ from those wanted only where the value that is rounded lies
// between two of them, so that the order of a sum decides, and in the channels that follow.
func (c fedCase) requireCodes(t *testing.T, got, want []uint8, in [5][]float32) {
	t.Helper()
	whole := 0
	last := float64(int(1)<<c.bits - 1)
	for token := range c.heads * c.tokens {
		head := token / c.tokens
		errors := make([]float64, c.channels)
		same := true
		for d := c.channels - 1; d >= 0 && same; d-- {
			i := token*c.channels + d
			group := (token/c.groups[0])*(c.channels/c.groups[1]) + d/c.groups[1]
			x, scale, zero, width := float64(in[0][i]), float64(in[1][group]), float64(in[2][group]), float64(in[1][group])
			if c.width {
				width = float64(in[3][group])
			}
			if got[i] != want[i] {
				same = false
				target := x
				for behind := d + 1; behind < c.channels; behind++ {
					target += errors[behind] * float64(in[4][(head*c.channels+behind)*c.channels+d])
				}
				steps := (target-zero-scale*last/2)/width + last/2
				if off := math.Abs(steps - math.Floor(steps) - 0.5); !(off < 1e-3) {
					t.Errorf("token %d, channel %d: code %d, wanted %d of %v", token, d, got[i], want[i], steps)
				}
			}
			if e := x - (float64(want[i])*scale + zero); math.Abs(e) <= math.MaxFloat32 {
				errors[d] = e
			}
		}
		if same {
			whole++
		}
	}
	if all := c.heads * c.tokens; whole < all*98/100 {
		t.Errorf("%d of %d tokens have the same codes", whole, all)
	}
}

// The kernel, executed on the host, makes the codes that graph operations make.
func TestFeedbackKernel(t *testing.T) {
	for _, c := range fedCases {
		t.Run(c.String(), func(t *testing.T) {
			if c.channels > 64 {
				testlane.OnlyAll(t, "a kernel takes its time on the host; fewer channels are tested")
			}
			in := c.inputs()
			c.requireCodes(t, c.onHost(in, feedbackLaunch), c.call(t, testbackend.XLA(t), in, false), in)
		})
	}
}

// A GPU makes the codes that the host makes of the same kernel.
func TestFeedbackKernelOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	for _, c := range fedCases {
		t.Run(c.String(), func(t *testing.T) {
			in := c.inputs()
			c.requireCodes(t, c.call(t, backend, in, true), c.onHost(in, feedbackLaunch), in)
		})
	}
}
