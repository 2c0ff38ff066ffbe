package kvq_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/kvqbook/kvqbook/device"
	"github.com/kvqbook/kvqbook/kvq"
)

// weights are numbers that stand for trained ones: [rows, columns].
func weights(g *Graph, seed float32, rows, columns int) *Node {
	i := ConvertDType(Iota(g, shapes.Make(dtypes.Int32, rows*columns), 0), dtypes.Float32)
	return Reshape(Mul(Sin(Mul(i, Const(g, seed))), Const(g, float32(0.3))), rows, columns)
}

// attention is attention code of one's own: x [B, t, 64] -> [B, t, 64], 2 heads of 32. Between the
// projections stand the cache's three lines.
func attention(cache kvq.Cache, x *Node) *Node {
	b, t := x.Shape().Dim(0), x.Shape().Dim(1)
	project := func(seed float32) *Node { // [B, K, t, D]
		y := DotGeneral(x, []int{2}, nil, weights(x.Graph(), seed, 64, 64), []int{0}, nil)
		return TransposeAllAxes(Reshape(y, b, t, 2, 32), 0, 2, 1, 3)
	}
	// a rotary embedding would take cache.Positions(t)
	queries, keys, values := project(1.1), project(1.2), project(1.3)
	layer := cache.Layer(0)
	layer.Append(keys, values)
	out := layer.Attend(queries)
	cache.Advance()
	return Reshape(TransposeAllAxes(out, 0, 2, 1, 3), b, t, 64)
}

// text stands for the embeddings of a text: [1, tokens, 64].
func text(tokens int) [][][]float32 {
	x := make([][]float32, tokens)
	for i := range x {
		for d := range 64 {
			x[i] = append(x[i], float32(math.Sin(float64(1+i*64+d)*1.7)))
		}
	}
	return [][][]float32{x}
}

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// backend is XLA on the CPU, opened once.
func backend() compute.Backend {
	if opened == nil {
		opened = must(device.Open("xla:cpu"))
	}
	return opened
}

var opened compute.Backend

var shape = kvq.Shape{Layers: 1, Batch: 1, KVHeads: 2, HeadDim: 32, Capacity: 128, DType: dtypes.Float32}

// largestDifference of two tensors.
func largestDifference(a, b *tensors.Tensor) (worst float64) {
	x, y := tensors.MustCopyFlatData[float32](a), tensors.MustCopyFlatData[float32](b)
	for i := range x {
		worst = max(worst, math.Abs(float64(x[i]-y[i])))
	}
	return worst
}

// A prompt and then token by token, in separate calls: the state goes out of one call and into the
// next. See attention above for the code that uses the cache. With the zero Config it runs in full
// precision: the model does not see which it has.
func Example_separateCalls() {
	answer := func(config kvq.Config) *tensors.Tensor {
		plan := must(kvq.New(config, shape))
		prompt := MustNewExec(backend(), func(x, start *Node) []*Node {
			cache := plan.Init(start) // start: how many slots of padding each row begins with
			return append([]*Node{attention(cache, x)}, cache.Nodes()...)
		})
		token := MustNewExec(backend(), func(in []*Node) []*Node {
			cache := plan.From(in[1:])
			return append([]*Node{attention(cache, in[0])}, cache.Nodes()...)
		})
		x := text(100)
		out := prompt.MustExec([][][]float32{x[0][:90]}, []int32{0})
		for i := 90; i < 100; i++ {
			in := []any{[][][]float32{{x[0][i]}}}
			for _, state := range out[1:] {
				in = append(in, state)
			}
			out = token.MustExec(in...)
		}
		return out[0]
	}
	difference := largestDifference(answer(kvq.Tutorial()), answer(kvq.Config{}))
	fmt.Println("quantized:", difference > 0, "near:", difference < 0.1)
	// Output: quantized: true near: true
}

// The same inside a While of one graph: the state is loop state, and XLA updates it in place.
func Example_while() {
	answer := func(config kvq.Config) *tensors.Tensor {
		plan := must(kvq.New(config, shape))
		run := MustNewExec(backend(), func(x, start *Node) *Node { // x [1, 100, 64]
			g := x.Graph()
			cache := plan.Init(start)
			attention(cache, Slice(x, AxisRange(), AxisRange(0, 90), AxisRange()))
			state := append([]*Node{Const(g, int32(90)), x, Slice(x, AxisRange(), AxisElem(-1), AxisRange())}, cache.Nodes()...)

			// Closures make their own constants with Const, and get everything else as loop state.
			parameters := func(g *Graph) []*Node {
				var nodes []*Node
				for _, s := range state {
					nodes = append(nodes, Parameter(g, g.UniqueName("state"), s.Shape()))
				}
				return nodes
			}
			more := NewClosure(g, func(g *Graph) []*Node {
				return []*Node{LessThan(parameters(g)[0], Const(g, int32(100)))}
			})
			step := NewClosure(g, func(g *Graph) []*Node {
				in := parameters(g)
				i, x, cache := in[0], in[1], plan.From(in[3:])
				zero := Const(g, int32(0))
				y := attention(cache, DynamicSlice(x, []*Node{zero, i, zero}, []int{1, 1, 64}))
				return append([]*Node{Add(i, Const(g, int32(1))), x, y}, cache.Nodes()...)
			})
			return While(more, step, state...)[2]
		})
		return run.MustExec1(text(100), []int32{0})
	}
	difference := largestDifference(answer(kvq.Tutorial()), answer(kvq.Config{}))
	fmt.Println("quantized:", difference > 0, "near:", difference < 0.1)
	// Output: quantized: true near: true
}

// The bytes of a cache are known before anything is allocated, and are what live tensors take.
func ExamplePlan_Memory() {
	llama := kvq.Shape{Layers: 32, Batch: 1, KVHeads: 32, HeadDim: 128, Capacity: 4096, DType: dtypes.Float16}
	full := must(kvq.New(kvq.Config{}, llama)).Memory()
	plan := must(kvq.New(kvq.Tutorial(), llama))
	m := plan.Memory()
	const mib = 1 << 20
	fmt.Printf("full precision  %4d MiB\n", full.Total()/mib)
	fmt.Printf("tutorial        %4d MiB: codes %d, scales %d, zero points %d, window %d\n", m.Total()/mib, m.Codes/mib, m.Scales/mib, m.Zeros/mib, m.Window/mib)
	fmt.Println(plan.BitsPerValue(), "bits a value")

	small := must(kvq.New(kvq.Tutorial(), shape))
	state := MustNewExec(backend(), func(start *Node) []*Node { return small.Init(start).Nodes() }).MustExec([]int32{0})
	measured := must(kvq.Measure(small, state))
	fmt.Println("measured as predicted:", measured == small.Memory())
	// Output:
	// full precision  2048 MiB
	// tutorial         672 MiB: codes 512, scales 64, zero points 64, window 32
	// 5 bits a value
	// measured as predicted: true
}

// Presets come from measurements on texts: docs/quality.md.
func ExamplePreset() {
	for _, name := range []string{"quality", "balanced", "smallest"} {
		plan := must(kvq.New(must(kvq.Preset(name)), kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: 1024, DType: dtypes.Float32}))
		fmt.Printf("%-8s at most 8 bits a value: %v\n", name, plan.BitsPerValue() <= 8)
	}
	_, err := kvq.Preset("tiny")
	fmt.Println(err)
	// Output:
	// quality  at most 8 bits a value: true
	// balanced at most 8 bits a value: true
	// smallest at most 8 bits a value: true
	// kvq.Preset: want one of ["balanced" "lower" "lowest" "quality" "smallest"], got "tiny"
}

// A configuration that cannot be is refused before any graph is built, in one line.
func ExampleConfig_Validate() {
	for _, c := range []kvq.Config{
		{Backend: kvq.Blocks, NBits: 4, ResidualLength: -1},
		{Backend: kvq.Quanto, NBits: 4, QGroupSize: 48, ResidualLength: 64},
		{Backend: kvq.Quanto, NBits: 4, ResidualLength: 64, Sinks: 4},
		{Backend: kvq.Blocks, LayerBits: "0=8"},
	} {
		fmt.Println(c.Validate(64))
	}
	// Output:
	// kvq.Config.ResidualLength: want at least 0 for backend blocks, got -1
	// kvq.Config.QGroupSizeKey: want a divisor of the head dimension 64, got 48: take 32 (kvq.Config.For)
	// kvq.Config.Sinks: want 0 (sinks need backend "blocks"), got 4
	// kvq.Config.LayerBits: want entries like "0-1=8/6" (layers=key bits/value bits), got "0=8"
}

// A cache is saved to one file and goes on later, bit for bit.
func ExampleSave() {
	plan := must(kvq.New(kvq.Tutorial(), shape))
	state := MustNewExec(backend(), func(x, start *Node) []*Node {
		cache := plan.Init(start)
		attention(cache, x)
		return cache.Nodes()
	}).MustExec(text(90), []int32{0})

	folder := must(os.MkdirTemp("", "kvq"))
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "cache.safetensors")
	if err := kvq.Save(path, plan, state); err != nil {
		fmt.Println(err)
	}
	loaded, tensors, err := kvq.Load(path)
	fmt.Println(loaded.Config(), len(tensors) == len(state), err)

	_, _, err = kvq.Load(filepath.Join(folder, "absent"))
	fmt.Println("absent:", errors.Is(err, os.ErrNotExist))
	// Output:
	// quanto 4 bit g32 r64 true <nil>
	// absent: true
}

// BLOOM and MPT have ALiBi in the place of rotary positions. Gemma 2 caps scores, and every second
// of its layers has a window.
func ExampleAttention() {
	alibi := shape
	alibi.Attention = kvq.Attention{Slopes: kvq.ALiBiSlopes(4)} // 4 query heads
	gemma := shape
	gemma.Layers = 2
	gemma.Attention = kvq.Attention{Scale: 1.0 / 16, SoftCap: 50, LayerWindows: []int{64, 0}}
	for _, s := range []kvq.Shape{alibi, gemma} {
		plan := must(kvq.New(kvq.Tutorial(), s))
		fmt.Printf("%+v\n", plan.Shape().Attention)
	}
	// Output:
	// {Scale:0 SoftCap:0 Slopes:[0.25 0.0625 0.015625 0.00390625] LayerWindows:[] Cross:false}
	// {Scale:0.0625 SoftCap:50 Slopes:[] LayerWindows:[64 0] Cross:false}
}
