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
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// BenchmarkStorePrompt times on a GPU how one layer of a prompt becomes codes, 2,048 tokens of
// Llama-2-7B's shape in float16, and what each part of a format adds. The line "pass" is a loop of
// the same kind that only copies.
func BenchmarkStorePrompt(b *testing.B) {
	backend := testbackend.CUDA(b)
	const heads, tokens, dim, turns = 32, 2048, 128, 20
	rng := rand.New(rand.NewPCG(1, 2))
	flat := make([]float32, heads*tokens*dim)
	for i := range flat {
		flat[i] = float32(rng.NormFloat64())
	}
	input := tensors.FromFlatDataAndDimensions(flat, 1, tokens, heads, dim)
	wide := shapes.Make(dtypes.Float16, 1, heads, tokens, dim)
	// step makes new values of x and of what it wrote before.
	run := func(name string, state []shapes.Shape, step func(x *Node, st []*Node) []*Node) {
		exec := MustNewExec(backend, func(x *Node) []*Node {
			g := x.Graph()
			first := []*Node{gx.Scalar(g, dtypes.Int32, 0), gx.Zeros(g, shapes.Make(dtypes.Float16))}
			for _, s := range state {
				first = append(first, gx.Zeros(g, s))
			}
			x = ConvertDType(x, dtypes.Float16) // [B, tokens, heads, dim], as a product gives it
			return gx.LoopOver([]*Node{x}, first,
				func(st []*Node) *Node { return gx.LessThanScalar(st[0], turns) },
				func(captured, st []*Node) []*Node {
					x := Add(captured[0], gx.BroadcastToDims(st[1], captured[0].Shape().Dimensions...))
					out := step(Transpose(x, 1, 2), st[2:])
					// 0, which XLA cannot know.
					corner := out[0]
					for corner.Rank() > 0 {
						corner = Squeeze(SliceAxis(corner, 0, AxisElem(0)), 0)
					}
					zero := gx.MinScalar(ConvertDType(ConvertDType(corner, dtypes.Float32), dtypes.Float16), 0)
					return append([]*Node{gx.AddScalar(st[0], 1), gx.MulScalar(zero, 0)}, out...)
				})[1:]
		})
		defer exec.Finalize()
		compile, times := timed(exec, input, 20)
		us := func(i int) float64 { return float64(times[i].Nanoseconds()) / 1e3 / turns }
		fmt.Printf("%-44s %8.1f %8.1f µs; first %.1f s\n", name, us(0), us(len(times)/2), compile.Seconds())
	}
	// The dependency on x itself, where a step is to be left out, is a copy.
	run("pass", []shapes.Shape{wide}, func(x *Node, _ []*Node) []*Node { return []*Node{x} })
	store := func(name string, f codes.Format, fed bool) {
		var state []shapes.Shape
		for _, a := range f.Arrays(1, heads, tokens, dtypes.Float16) {
			state = append(state, a.Shape)
		}
		run(name, state, func(x *Node, st []*Node) []*Node {
			to, _ := f.Take(st)
			valid := gx.LessThanScalar(Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, tokens), 1), tokens-1)
			var factor *Node
			if fed {
				factor = ConvertDType(gx.MulScalar(Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)), 0.02), dtypes.Float32)
			}
			return StoreCodes(f, to, x, valid, factor, 64).Nodes()
		})
	}
	for _, name := range []string{"tutorial", "balanced", "lowest"} {
		config := Tutorial()
		if name != "tutorial" {
			config, _ = Preset(name)
		}
		p, err := New(config, Shape{Layers: 1, Batch: 1, KVHeads: heads, HeadDim: dim, Capacity: tokens + 256, DType: dtypes.Float16})
		if err != nil {
			b.Fatal(err)
		}
		l := p.Inside().Layers[0]
		store(name+" values", l.Value, false)
		store(name+" keys", l.Key, l.Key.Feedback)
		if name == "tutorial" {
			continue
		}
		plain := func(f codes.Format) codes.Format { f.Spec.Quantizer = numbers.MinMax; return f }
		straight := func(f codes.Format) codes.Format { f.Rotate = false; return f }
		store(name+" values, no search", plain(l.Value), false)
		store(name+" values, no search, not rotated", plain(straight(l.Value)), false)
		if l.Key.Feedback {
			store(name+" keys, no feedback", l.Key, false)
		}
		key := l.Key
		if key.TokenScales {
			key.TokenScales = false
			store(name+" keys, no feedback, token scales", key, false)
		}
		store(name+" keys, no feedback, token scales, search", plain(key), false)
		store(name+" keys, none, not rotated", plain(straight(key)), false)
	}
	run("metric of 256 tokens", []shapes.Shape{shapes.Make(dtypes.Float32, 1, heads, dim, dim)}, func(x *Node, _ []*Node) []*Node {
		queries := Slice(x, AxisRange(), AxisRange(), AxisRange(0, 256))
		return []*Node{QueryMetric(queries, gx.LessThanScalar(Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, 256), 1), 255), heads)}
	})
	run("factor and packing it", []shapes.Shape{numbers.PackedFactor(dim, 1, heads)}, func(x *Node, _ []*Node) []*Node {
		square := ConvertDType(Slice(x, AxisRange(), AxisRange(), AxisRange(0, dim)), dtypes.Float32)
		damping := gx.Fill(x.Graph(), shapes.Make(dtypes.Float32, 1, 1, 1, 1), 0.3)
		return []*Node{numbers.PackFactor(numbers.Factor(numbers.Rotate(Transpose(numbers.Rotate(square), -1, -2)), damping))}
	})
}
