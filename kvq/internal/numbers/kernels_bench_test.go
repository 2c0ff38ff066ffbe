package numbers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// BenchmarkPromptKernels times how the kernels for ranges and feedback are started, on a GPU: keys
// and values of one layer of Llama-2-7B's shape, 2,048 tokens and 2 bits. A launch is what a
// program takes at once, and its warps. The line "pass" is a loop of the same kind that only reads
// the keys.
func BenchmarkPromptKernels(b *testing.B) {
	backend := testbackend.CUDA(b)
	const heads, tokens, dim, turns = 32, 2048, 128, 32
	rng := rand.New(rand.NewPCG(1, 2))
	flat := make([]float32, heads*tokens*dim)
	for i := range flat {
		flat[i] = float32(rng.NormFloat64())
	}
	x := tensors.FromFlatDataAndDimensions(flat, 1, heads, tokens, dim)
	// step makes of x and a number that XLA cannot know, 0, what has to be waited for.
	run := func(name string, step func(x, zero *Node) *Node) {
		exec := MustNewExec(backend, func(x *Node) *Node {
			zero := gx.Zeros(x.Graph(), shapes.Make(dtypes.Float32))
			return gx.LoopOver([]*Node{x}, []*Node{gx.Scalar(x.Graph(), dtypes.Int32, 0), zero},
				func(st []*Node) *Node { return gx.LessThanScalar(st[0], turns) },
				func(captured, st []*Node) []*Node {
					first := step(captured[0], st[1])
					for first.Rank() > 0 {
						first = Squeeze(SliceAxis(first, 0, AxisElem(0)), 0)
					}
					return []*Node{gx.AddScalar(st[0], 1), gx.MulScalar(gx.MinScalar(ConvertDType(first, dtypes.Float32), 0), 1e-9)}
				})[1]
		})
		defer exec.Finalize()
		call := func() time.Duration {
			start := time.Now()
			out := exec.MustCall(x)[0]
			out.MustConstFlatData(func(any) {})
			out.MustFinalizeAll()
			return time.Since(start)
		}
		call()
		var times []time.Duration
		for range 10 {
			times = append(times, call())
		}
		slices.Sort(times)
		fmt.Printf("%-44s %8.1f µs\n", name, float64(times[0].Nanoseconds())/1e3/turns)
	}
	run("pass", func(x, zero *Node) *Node {
		return gx.ReduceSum(Add(x, gx.BroadcastToDims(zero, x.Shape().Dimensions...)), 3)
	})
	for _, c := range []struct {
		name     string
		keys     bool
		dims     []int
		launches []launch
	}{
		{"keys, groups of 32", true, []int{heads, tokens / 32, 32, dim}, []launch{{32, 4}, {32, 1}, {64, 2}, {16, 1}}},
		{"values, groups of 64", false, []int{heads, tokens * dim / 64, 64}, []launch{{32, 4}, {32, 1}, {16, 4}, {8, 1}}},
	} {
		for _, l := range c.launches {
			run(fmt.Sprintf("%s, %d, %d", c.name, l.atOnce, l.warps), func(x, zero *Node) *Node {
				x = Reshape(x, c.dims...)
				x = Add(x, gx.BroadcastToDims(zero, x.Shape().Dimensions...))
				f, _ := fittingOf(x, 2, 2, IsFinite(x))
				return f.launched(l, cutsOf(2, c.dims[2], c.keys), c.keys)
			})
		}
	}
	for _, l := range []launch{{32, 1}, {64, 1}, {128, 1}, {64, 2}, {128, 4}} {
		run(fmt.Sprintf("feedback, %d, %d", l.atOnce, l.warps), func(x, zero *Node) *Node {
			ranges := gx.Ones(x.Graph(), shapes.Make(dtypes.Float32, 1, heads, tokens/32, dim))
			scale := Add(ranges, gx.BroadcastToDims(zero, ranges.Shape().Dimensions...))
			factor := gx.MulScalar(Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)), 0.02)
			k := fedBackOf(x, scale, scale, 2)
			k.launch = l
			return k.call(x, scale, gx.MulScalar(scale, -1.5), scale, factor)
		})
	}
}
