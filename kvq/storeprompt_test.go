package kvq_test

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
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
