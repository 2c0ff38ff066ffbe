package kvq_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/cpukernel"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// BenchmarkCodingOnCPU times on a CPU how one layer of a prompt of 1,024 tokens becomes codes, by
// graph operations and in C, and what the metric of its queries takes: shortest and median.
func BenchmarkCodingOnCPU(b *testing.B) {
	backend := testbackend.XLA(b)
	for _, shape := range []struct {
		name       string
		heads, dim int
	}{{"SmolLM2", 3, 64}, {"Llama-2-7B", 32, 128}} {
		const tokens, slots = 1024, 960
		heads, dim := shape.heads, shape.dim
		rng := rand.New(rand.NewPCG(1, 2))
		flat := make([]float32, heads*tokens*dim)
		for i := range flat {
			flat[i] = float32(rng.NormFloat64())
		}
		input := tensors.FromFlatDataAndDimensions(flat, 1, tokens, heads, dim)
		run := func(name string, step func(x *Node) []*Node) {
			exec := MustNewExec(backend, func(x *Node) []*Node { return step(Transpose(x, 1, 2)) })
			defer exec.Finalize()
			compile, times := timed(exec, input, 30)
			ms := func(i int) float64 { return float64(times[i].Nanoseconds()) / 1e6 }
			fmt.Printf("%-12s %-44s %8.2f %8.2f ms; first %.2f s\n", shape.name, name, ms(0), ms(len(times)/2), compile.Seconds())
		}
		store := func(name string, f codes.Format, fed bool) {
			run(name, func(x *Node) []*Node {
				g := x.Graph()
				var list []*Node
				for _, a := range f.Arrays(1, heads, slots, dtypes.Float32) {
					list = append(list, gx.Zeros(g, a.Shape))
				}
				to, _ := f.Take(list)
				valid := gx.LessThanScalar(Iota(g, shapes.Make(dtypes.Int32, 1, slots), 1), slots-1)
				var factor *Node
				if fed {
					factor = gx.MulScalar(Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)), 0.02)
				}
				x = Slice(x, AxisRange(), AxisRange(), AxisRange(4, 4+slots))
				return StoreCodes(f, to, x, valid, factor, 64).Nodes()
			})
		}
		inC := func(name string, f codes.Format, fed bool) {
			run(name+", in C", func(x *Node) []*Node {
				g := x.Graph()
				valid := gx.LessThanScalar(Iota(g, shapes.Make(dtypes.Int32, 1, slots), 1), slots)
				var factor *Node
				if fed {
					factor = gx.MulScalar(Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)), 0.02)
				}
				blocks, ok := cpukernel.Encode(f, x, gx.Fill(g, shapes.Make(dtypes.Int32, 1), 4), slots, valid, factor)
				if !ok {
					b.Skip("there is no function in C")
				}
				return blocks.Nodes()
			})
		}
		run("nothing", func(x *Node) []*Node { return []*Node{gx.MulScalar(x, 2)} })
		for _, name := range []string{"balanced", "smallest", "lowest"} {
			config, _ := Preset(name)
			p, err := New(config, Shape{Layers: 1, Batch: 1, KVHeads: heads, HeadDim: dim, Capacity: tokens + 256, DType: dtypes.Float32})
			if err != nil {
				b.Fatal(err)
			}
			l := p.Inside().Layers[0]
			store(name+" values", l.Value, false)
			inC(name+" values", l.Value, false)
			store(name+" keys", l.Key, l.Key.Feedback)
			inC(name+" keys", l.Key, l.Key.Feedback)
			if l.Key.Feedback {
				inC(name+" keys, no feedback", l.Key, false)
			}
		}
		run("metric of 256 tokens", func(x *Node) []*Node {
			queries := Slice(Concatenate([]*Node{x, x, x}, 1), AxisRange(), AxisRange(), AxisRange(0, 256))
			return []*Node{QueryMetric(queries, gx.LessThanScalar(Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, 256), 1), 255), heads)}
		})
		square := func(x *Node) *Node { return Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)) }
		damping := func(x *Node) *Node { return gx.Fill(x.Graph(), shapes.Make(dtypes.Float32, 1, 1, 1, 1), 0.3) }
		run("factor", func(x *Node) []*Node { return []*Node{numbers.Factor(square(x), damping(x))} })
		run("rotated, factor, packed", func(x *Node) []*Node {
			m := numbers.Rotate(Transpose(numbers.Rotate(square(x)), -1, -2))
			return []*Node{numbers.PackFactor(numbers.Factor(m, damping(x)))}
		})
		run("… and unpacked", func(x *Node) []*Node {
			m := numbers.Rotate(Transpose(numbers.Rotate(square(x)), -1, -2))
			return []*Node{numbers.UnpackFactor(numbers.PackFactor(numbers.Factor(m, damping(x))))}
		})
	}
}
