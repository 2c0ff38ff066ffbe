package kvq_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// Cache.Through gives what calling the layers in place gives: for a prompt, single tokens and a
// chunk, in float32 (functions) and bfloat16 (one graph), with layers that are coded alike and with
// others.
func TestThroughEqualsLayers(t *testing.T) { throughEqualsLayers(t, testbackend.XLA(t)) }

// The same on a GPU, where the kernel runs.
func TestThroughOnCUDA(t *testing.T) {
	throughEqualsLayers(t, testbackend.CUDA(t))
}

func throughEqualsLayers(t *testing.T, backend compute.Backend) {
	const layers, b, h, kv, dim, capacity = 2, 2, 4, 2, 32, 96
	mixed := kvq.Config{Backend: kvq.Blocks, NBits: 4, QGroupSize: 32, AxisKey: kvq.PerChannel, RotateKeys: true, LayerBits: "1=3/2"}
	for _, c := range []struct {
		name      string
		config    kvq.Config
		dtype     dtypes.DType
		tolerance float64
		all       bool // all that a model may ask for, and masks
	}{
		{"full precision", kvq.Config{}, dtypes.Float32, 1e-5, false},
		{"full precision, all options", kvq.Config{}, dtypes.Float32, 1e-5, true},
		{"tutorial", kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 8}, dtypes.Float32, 1e-5, false},
		{"tutorial, all options", kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 8}, dtypes.Float32, 1e-5, true},
		{"tutorial, bfloat16", kvq.Config{Backend: kvq.Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 8}, dtypes.BFloat16, 0, false},
		{"layers of other bits", mixed, dtypes.Float32, 1e-5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config.Quantized() {
				testlane.Slow(t, "full precision stands for all; the model's goldens run quantized caches this way")
			}
			if c.dtype != dtypes.Float32 {
				testlane.OnlyAll(t, "16 bits stay in one graph either way")
			}
			if c.all && c.config.Quantized() {
				testlane.OnlyAll(t, "full precision stands for all")
			}
			shape := kvq.Shape{Layers: layers, Batch: b, KVHeads: kv, HeadDim: dim, Capacity: capacity, DType: c.dtype}
			if c.all {
				shape.Attention = kvq.Attention{Scale: 0.4, SoftCap: 3, Slopes: kvq.ALiBiSlopes(h), LayerWindows: []int{0, 9}}
			}
			plan, err := kvq.New(c.config, shape)
			if err != nil {
				t.Fatal(err)
			}
			// decoder mixes x [B, t, H·D] with its attention; inputs are a scale that differs by
			// layer.
			decoder := func(layer kvq.LayerCache, x *Node, inputs []*Node) *Node {
				s := x.Shape()
				heads := TransposeAllAxes(Reshape(x, b, s.Dim(1), h, dim), 0, 2, 1, 3)
				token := Slice(heads, AxisRange(), AxisRange(0, kv))
				layer.Append(token, Neg(token))
				out := Reshape(TransposeAllAxes(layer.Attend(heads), 0, 2, 1, 3), s.Dimensions...)
				return Add(Mul(x, gx.BroadcastToDims(Reshape(inputs[0], 1, 1, 1), s.Dimensions...)), out)
			}
			step := func(cache kvq.Cache, x *Node, through bool) []*Node {
				if g, t := x.Graph(), x.Shape().Dim(1); c.all && t != 3 {
					shape := shapes.Make(dtypes.Int32, b, 1, t, capacity)
					sees := Add(Iota(g, shape, 0), Add(Iota(g, shape, 2), Iota(g, shape, 3)))
					bias := Sin(ConvertDType(Iota(g, shapes.Make(dtypes.Int32, 1, h, 1, capacity), 3), dtypes.Float32))
					if t > 1 {
						cache.Mask(kvq.Masks{Visible: gx.GreaterThanScalar(Rem(sees, gx.Scalar(g, dtypes.Int32, 3)), 0), Bias: bias})
					} else {
						cache.Mask(kvq.Masks{Bias: bias})
					}
				}
				for i := range layers {
					inputs := []*Node{gx.Fill(x.Graph(), shapes.Make(c.dtype, 1), 0.5+float64(i)/8)}
					if through {
						x = cache.Through(i, x, inputs, decoder)
					} else {
						x = decoder(cache.Layer(i), x, inputs)
					}
				}
				cache.Advance()
				return append([]*Node{ConvertDType(x, dtypes.Float32)}, cache.Nodes()...)
			}
			run := func(through bool, steps []int) (outputs [][]float32) {
				var state []*tensors.Tensor
				for i, n := range steps {
					exec := MustNewExec(backend, func(in []*Node) []*Node {
						x := IotaFull(in[0].Graph(), shapes.Make(dtypes.Int32, b, n, h*dim))
						x = ConvertDType(Sin(ConvertDType(gx.AddScalar(x, i), dtypes.Float32)), c.dtype)
						if state == nil {
							return step(plan.Init(in[0]), x, through)
						}
						return step(plan.From(in), x, through)
					})
					args := []any{[]int32{0, 3}}
					if state != nil {
						args = nil
						for _, s := range state {
							args = append(args, s)
						}
					}
					out := exec.MustCall(args...)
					exec.Finalize()
					outputs, state = append(outputs, tensors.MustCopyFlatData[float32](out[0])), out[1:]
				}
				return outputs
			}
			steps := []int{40, 1, 3}
			got, want := run(true, steps), run(false, steps)
			for i := range want {
				for j, w := range want[i] {
					if diff := math.Abs(float64(got[i][j] - w)); !(diff <= c.tolerance) {
						t.Fatalf("step %d of %d tokens: element %d is %v, want %v", i, steps[i], j, got[i][j], w)
					}
				}
			}
		})
	}
}
