package llama

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
)

// linearBench multiplies by count matrices of one shape in a loop, so that calls and the
// processor's cache do not count.
type linearBench struct {
	exec  *Exec
	args  []any
	times []time.Duration
}

const linearBenchSteps = 16

// flat gives the elements of a tensor in host memory.
func flat[T any](t *tensors.Tensor, use func([]T)) {
	t.MustMutableFlatData(func(x any) { use(x.([]T)) })
}

func newLinearBench(b *testing.B, kind string, rows, out, in, count int) *linearBench {
	r := rand.New(rand.NewPCG(1, 2))
	halves := func() *tensors.Tensor {
		t := tensors.FromShape(shapes.Make(dtypes.Float16, in/packedGroup, out))
		flat(t, func(x []float16.Float16) {
			for i := range x {
				x[i] = float16.FromFloat32(r.Float32() * 0.01)
			}
		})
		return t
	}
	words := func(n int) *tensors.Tensor {
		t := tensors.FromShape(shapes.Make(dtypes.Uint32, in/packedGroup, n, out))
		flat(t, func(x []uint32) {
			for i := range x {
				x[i] = r.Uint32()
			}
		})
		return t
	}
	lb := &linearBench{}
	each := 0
	for range count {
		var weight []*tensors.Tensor
		switch kind {
		case "float32":
			t := tensors.FromShape(shapes.Make(dtypes.Float32, out, in))
			flat(t, func(x []float32) {
				for i := range x {
					x[i] = r.Float32() * 0.01
				}
			})
			weight = append(weight, t)
		case "Q4_1":
			weight = append(weight, words(4), halves(), halves())
		case "Q8_0":
			weight = append(weight, words(8), halves())
		}
		each = len(weight)
		for _, t := range weight {
			lb.args = append(lb.args, t)
		}
	}
	lb.exec = MustNewExec(testbackend.XLA(b), func(nodes []*Node) *Node {
		g := nodes[0].Graph()
		x := Reshape(Cos(ConvertDType(Iota(g, shapes.Make(dtypes.Int32, rows*in), 0), dtypes.Float32)), rows, in)
		return gx.Loop([]*Node{gx.Scalar(g, dtypes.Int32, 0), x}, func(st []*Node) *Node { return gx.LessThanScalar(st[0], linearBenchSteps) },
			func(st []*Node) []*Node {
				x := st[1]
				for i := range count {
					w := matrix{plain: nodes[i*each]}
					if each > 1 {
						w = matrix{codes: nodes[i*each], scale: nodes[i*each+1], out: []int{out}}
					}
					if each > 2 {
						w.min = nodes[i*each+2]
					}
					y := linear32(x, w)
					for y.Shape().Dim(1) < in {
						y = Concatenate([]*Node{y, y}, 1)
					}
					x = Add(gx.MulScalar(x, 0.5), gx.MulScalar(SliceAxis(y, 1, AxisRange(0, in)), 0.001))
				}
				return []*Node{gx.AddScalar(st[0], 1), x}
			})[1]
	})
	lb.run()
	lb.times = nil
	return lb
}

func (lb *linearBench) run() {
	start := time.Now()
	out := lb.exec.MustCall(lb.args...)
	out[0].MustConstFlatData(func(any) {})
	lb.times = append(lb.times, time.Since(start)/linearBenchSteps)
	out[0].MustFinalizeAll()
}

// BenchmarkLinear is the time of one product with the weights of SmolLM2-135M, float32 and packed
// in turns.
func BenchmarkLinear(b *testing.B) {
	for _, rows := range []int{1, 8} {
		for _, shape := range []struct {
			packed         string
			out, in, count int
		}{{"Q4_1", 3072, 576, 12}, {"Q4_1", 576, 1536, 24}, {"Q8_0", 49152, 576, 1}} {
			b.Run(fmt.Sprintf("%d/%s/%dx%d", rows, shape.packed, shape.out, shape.in), func(b *testing.B) {
				names := []string{"float32", shape.packed}
				var runs []*linearBench
				for _, name := range names {
					runs = append(runs, newLinearBench(b, name, rows, shape.out, shape.in, shape.count))
				}
				var ratios []float64
				for b.Loop() {
					for range 7 {
						for _, r := range runs {
							r.run()
						}
						last := func(i int) float64 { return float64(runs[i].times[len(runs[i].times)-1]) }
						ratios = append(ratios, last(0)/last(1))
					}
				}
				for i, r := range runs {
					b.ReportMetric(float64(slices.Min(r.times).Microseconds())/float64(shape.count), names[i]+"-min-us")
					r.exec.Finalize()
					for _, t := range r.args {
						t.(*tensors.Tensor).MustFinalizeAll()
					}
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[0], "faster-min")
				b.ReportMetric(ratios[len(ratios)/2], "faster-median")
			})
		}
	}
}
