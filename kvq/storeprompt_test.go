package kvq_test

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// A prompt coded in pieces gets the codes, scales and zero points that it gets at once; the last
// piece overlaps the one before it.
func TestPromptInPiecesIsPromptAtOnce(t *testing.T) {
	backend := testbackend.XLA(t)
	const tokens, unit = 704, 64
	config := Config{Backend: Blocks, NBits: 2, QGroupSizeKey: unit, QGroupSizeValue: 32, AxisKey: PerChannel, QuantizerKey: Unbiased, QuantizerValue: Unbiased}
	layer := newPlan(t, config, Shape{Layers: 1, Batch: 1, KVHeads: 8, HeadDim: 64, Capacity: tokens, DType: dtypes.Float32}).Inside().Layers[0]
	for _, s := range []codes.Format{layer.Key, layer.Value} {
		d := []int{1, 8, tokens, 64}
		out := MustNewExec(backend, func(seed *Node) []*Node {
			g := seed.Graph()
			if piece := PromptPiece(s.Spec.Candidates(g, s.Group), d, unit); piece >= tokens || tokens%piece == 0 || piece%unit != 0 {
				t.Errorf("%s: pieces of %d tokens, want whole units that do not divide %d", sideName(s), piece, tokens)
			}
			x := Mul(ConvertDType(IotaFull(g, shapes.Make(dtypes.Int32, d...)), dtypes.Float32), Scalar(g, dtypes.Float32, 0.7))
			x = Mul(Sin(x), Add(gx.AddScalar(Cos(gx.MulScalar(x, 0.013)), 1), seed))
			valid := LessThan(Iota(g, shapes.Make(dtypes.Int32, 1, tokens), 1), gx.Fill(g, shapes.Make(dtypes.Int32, 1, tokens), tokens-40))
			whole := s.Encode(x, valid)
			empty := whole.Each(func(x *Node) *Node { return gx.ZerosLike(x) })
			return append(whole.Nodes(), StoreCodes(s, empty, x, valid, nil, unit).Nodes()...)
		}).MustExec(float32(0.25))
		for i := range out[:len(out)/2] {
			want, got := out[i], out[len(out)/2+i]
			if !slices.Equal(bytesOf(t, want), bytesOf(t, got)) {
				t.Errorf("%s: array %d %s differs", sideName(s), i, want.Shape())
			}
		}
	}
}

// On a GPU a prompt's codes are made of keys and values as fused attention has them, rows moved to
// the front; they are those of keys and values as they came, which attention with a mask leaves.
func TestPromptAtTheFrontOnCUDA(t *testing.T) {
	backend := testbackend.CUDA(t)
	const rows, heads, tokens, dim = 2, 2, 200, 128
	for _, name := range []string{"tutorial", "balanced", "lowest"} {
		t.Run(name, func(t *testing.T) {
			config := Tutorial()
			if name != "tutorial" {
				var err error
				if config, err = Preset(name); err != nil {
					t.Fatal(err)
				}
			}
			plan, err := New(config, Shape{Layers: 1, Batch: rows, KVHeads: heads, HeadDim: dim, Capacity: tokens + 100, DType: dtypes.Float16})
			if err != nil {
				t.Fatal(err)
			}
			prompt := func(masked bool) []*tensors.Tensor {
				exec := MustNewExec(backend, func(start, all *Node) []*Node {
					g, cache := start.Graph(), plan.Init(start)
					if masked {
						cache.Mask(Masks{Visible: gx.BroadcastToDims(Reshape(all, 1, 1, 1, 1), rows, 1, tokens, tokens+100)})
					}
					made := func(step float64) *Node {
						x := IotaFull(g, shapes.Make(dtypes.Int32, rows, heads, tokens, dim))
						return ConvertDType(Sin(gx.MulScalar(ConvertDType(x, dtypes.Float32), step)), dtypes.Float16)
					}
					layer := cache.Layer(0)
					layer.Append(made(0.7), made(1.3))
					out := layer.Attend(made(2.1))
					cache.Advance()
					return append(cache.Nodes(), out)
				})
				defer exec.Finalize()
				return exec.MustCall([]int32{0, 37}, true)
			}
			want := prompt(true)
			for i, got := range prompt(false)[:len(want)-1] {
				if !got.Equal(want[i]) {
					t.Errorf("array %d, %s, is another", i, got.Shape())
				}
			}
		})
	}
}
