package attend

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// What the fused attention of a prompt needs of it.
const (
	fusedMajor, fusedMinor = 8, 0 // CUDA's compute capability
	FusedMinTokens         = 128  // fewer: the scores are small, and the call has to be compiled
	FusedMaxDim            = 128  // cuDNN takes more on some GPUs alone
	fusedDims              = 8    // of which the head dimension is a multiple
)

// PromptQuery is what decides whether a prompt's attention is fused. Its arrays are those of
// [Scores.FusedPrompt].
type PromptQuery struct {
	Device                gpu.Device
	Devices               int  // that share the graph
	Backend               bool // the backend has the call, see [gx.FusesAttention]
	Queries, Keys, Values shapes.Shape
	Window                int  // newest tokens that a query sees; 0: no limit
	Other                 bool // queries see by more than causality and the window: masks, a bias, cross-attention
}

// Fuses reports whether [Scores.FusedPrompt] can take a prompt: 16-bit numbers on one CUDA device
// of compute capability 8.0 or newer, plain scores, causality alone.
func (s Scores) Fuses(q PromptQuery) bool {
	t, d := q.Queries.Dim(2), q.Queries.Dim(3)
	return q.Backend && q.Device.Compute(fusedMajor, fusedMinor) && q.Devices == 1 &&
		q.Queries.DType.IsHalfPrecision() && q.Keys.DType == q.Queries.DType && q.Values.DType == q.Queries.DType &&
		t >= FusedMinTokens && q.Keys.Dim(2) == t && d%fusedDims == 0 && d <= FusedMaxDim && q.Values.Dim(3) == d &&
		(q.Window == 0 || q.Window >= t) && !q.Other && s.SoftCap == 0 && len(s.Slopes) == 0
}

// FusedPrompt is [Scores.Prompt] in one call of cuDNN, which keeps no scores in memory and skips
// what causality hides (FlashAttention, Dao et al. 2022). Rows are padded on the left, which cuDNN
// does not know: their tokens are moved to the front, where padding comes after all that see it,
// and back. What it gives for padding is finite and means nothing.
//
//	queries [B, H, T, D], keys, values [B, K, T, D] in one 16-bit dtype, start [B] int32: padding of
//	each row -> [B, H, T, D]
func (s Scores) FusedPrompt(queries, keys, values, start *Node) *Node {
	front := func(x *Node) *Node { return ToFront(x, start) }
	out, _ := BackendFusedScaledDotProductAttention(front(queries), front(keys), front(values), compute.AttentionAxesLayoutBSHD,
		&compute.ScaledDotProductAttentionConfig{Causal: true, Scale: s.Scale})
	return TransposeAllAxes(moveTokens(out, start, true), 0, 2, 1, 3)
}

// ToFront moves the tokens of each row of x [B, H, T, D] to the front and puts them before heads:
// [B, T, H, D]. start [B] int32 is the padding that rows begin with; behind the last token it
// repeats.
func ToFront(x, start *Node) *Node {
	return moveTokens(TransposeAllAxes(x, 0, 2, 1, 3), start, false)
}

// moveTokens moves the tokens of each row of x [B, T, H, D] forward by start [B] int32, or back.
func moveTokens(x, start *Node, back bool) *Node {
	b, t := dims(x)[0], dims(x)[1]
	at, by := Iota(x.Graph(), shapes.Make(dtypes.Int32, b, t), 1), gx.BroadcastToDims(Reshape(start, b, 1), b, t)
	if back {
		return gx.TakeAt(x, gx.MaxScalar(Sub(at, by), 0))
	}
	return gx.TakeAt(x, gx.MinScalar(Add(at, by), t-1))
}
