package kvq_test

import (
	"context"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

const decoderVocabulary = 31

// layersDecoder is a decoder of GoMLX's layers: embeddings of tokens and positions, and in each of
// two layers a norm, attention of 4 heads over 2 key/value heads of 16, dropout, and a feed-forward
// part. ids [B, t] -> logits [B, t, V].
func layersDecoder(scope *model.Scope, cache Cache, in []*Node) []*Node {
	ids := in[0]
	b, t := ids.Shape().Dim(0), ids.Shape().Dim(1)
	embed := func(scope *model.Scope, ids *Node, size int) *Node {
		return layers.Embedding(scope, ExpandAxes(ids, -1), dtypes.Float32, size, 64)
	}
	x := Add(embed(scope.In("tokens"), ids, decoderVocabulary), embed(scope.In("positions"), cache.Positions(t), 512))
	for i := range 2 {
		scope := scope.In("layer_%d", i)
		h := norm.LayerNorm(scope.In("norm"), x, -1).Done()
		heads := func(name string, n int) *Node {
			return TransposeAllAxes(Reshape(layers.Dense(scope.In("%s", name), h, true, n*16), b, t, n, 16), 0, 2, 1, 3)
		}
		layer := cache.Layer(i)
		layer.Append(heads("keys", 2), heads("values", 2))
		h = Reshape(TransposeAllAxes(layer.Attend(heads("queries", 4)), 0, 2, 1, 3), b, t, 64)
		x = Add(x, layers.DropoutStatic(scope, layers.Dense(scope.In("out"), h, true, 64), 0.1))
		x = Add(x, Tanh(layers.Dense(scope.In("ff"), x, true, 64)))
	}
	cache.Advance()
	return []*Node{layers.Dense(scope.In("logits"), x, false, decoderVocabulary)}
}

func decoderPlan(t *testing.T, config Config, batch, capacity int) *Plan {
	t.Helper()
	p, err := New(config, Shape{Layers: 2, Batch: batch, KVHeads: 2, HeadDim: 16, Capacity: capacity, DType: dtypes.Float32})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func decoderStore() *model.Store {
	store := model.NewStore()
	store.SetParam(model.ParamInitialSeed, int64(3))
	return store
}

func TestSessionOfLayers(t *testing.T) {
	ctx := context.Background()
	s, err := NewSession(testbackend.XLA(t), decoderStore(), decoderPlan(t, Config{}, 2, 16), layersDecoder)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Finalize()
	tokens, start := PadLeft([][]int32{{1, 2, 3}, {4, 5, 6, 7, 8}}, 0)
	if _, err := s.PrefillPadded(ctx, start, tokens); err != nil {
		t.Fatal(err)
	}
	got, err := s.Generate(ctx, Generation{MaxTokens: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(got, s.Length(), s.Plan().Shape().Capacity)
	more, err := s.Generate(ctx, Generation{MaxTokens: 5})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(more, s.Length())
	out, err := s.Step(ctx, [][]int32{{1}, {2}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(tensors.MustCopyFlatData[float32](out[0])[:4], s.Length())
}
