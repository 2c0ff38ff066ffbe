package llama

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() {
	engine.NewReader = func(generator any, texts [][]tokenizer.Token, prompt int) (engine.Reader, error) {
		return newReader(generator.(*Generator), texts, prompt)
	}
}

// reader is [engine.Reader].
type reader struct {
	layerGraphs
	g       *Generator
	prompt  int
	ids     []int32 // [B, T]
	b, t    int
	metrics []any // of each layer, see keyMetrics; nil where the cache takes none
}

func newReader(g *Generator, texts [][]tokenizer.Token, prompt int) (*reader, error) {
	r := &reader{layerGraphs: newLayerGraphs(&programs{model: g.model}), g: g, prompt: prompt, b: len(texts)}
	for _, text := range texts {
		r.t = max(r.t, len(text))
	}
	for _, text := range texts {
		for i := range r.t {
			id := tokenizer.Token(g.model.config.PadID)
			if i < len(text) {
				id = text[i]
			}
			r.ids = append(r.ids, int32(id))
		}
	}
	plan, err := r.plan(engine.LayerCodes{})
	if err != nil {
		return nil, err
	}
	return r, kvqhook.CheckWholeText(plan, prompt)
}

// plan is that of a layer with other bits, where these are not 0.
func (r *reader) plan(coded engine.LayerCodes) (*kvq.Plan, error) {
	config, c := r.g.cache, r.graphs.model.own
	if config.LayerBits != "" {
		return nil, usererr.New("bits of single layers %q: a reader is told of them", config.LayerBits)
	}
	if coded.KeyBits != 0 {
		config.NBitsKey = coded.KeyBits
	}
	if coded.ValueBits != 0 {
		config.NBitsValue = coded.ValueBits
	}
	return kvq.New(config, kvq.Shape{Layers: 1, Batch: r.b, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Capacity: r.t, DType: r.graphs.model.dtype,
		SlidingWindow: c.SlidingWindow})
}

func (r *reader) Embed(ctx context.Context) (engine.Array, error) {
	p := r.startEmbed(embedKey{layerStep{batch: r.b, tokens: r.t, fresh: true}}, r.b, r.t)
	out, err := r.run(ctx, p, r.top, tensors.FromFlatDataAndDimensions(r.ids, r.b, r.t))
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

func (r *reader) Layer(ctx context.Context, layer int, coded engine.LayerCodes, x engine.Array) (engine.Array, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !coded.Keys {
		coded.KeyBits = 0
	}
	if !coded.Values {
		coded.ValueBits = 0
	}
	plan, err := r.plan(coded)
	if err != nil {
		return nil, err
	}
	if r.metrics == nil && coded.Keys {
		if r.metrics, err = r.g.sharedMetrics(ctx, plan, &Timing{}); err != nil {
			return nil, err
		}
	}
	hidden := x.(sharded)
	in, args := []layout{hidden.layout()}, []any{hidden}
	if coded.Keys && len(r.metrics) > 0 {
		in, args = append(in, r.graphs.model.on.across(plan.KeyMetric(), 0)), append(args, r.metrics[layer])
	}
	p := r.startOn(r.shares[layer], codedKey{coded}, in, nil, func(w weightNodes, in []*Node) []*Node {
		return []*Node{r.layer(w, plan, coded, in)}
	})
	out, err := r.run(ctx, p, r.shares[layer], args...)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// layer is a layer's graph: in are what it reads [B, T, hidden], and perhaps the metric of its
// keys.
func (r *reader) layer(w weightNodes, plan *kvq.Plan, coded engine.LayerCodes, in []*Node) *Node {
	g := in[0].Graph()
	cache := kvqhook.WholeText(plan, g, r.prompt, coded.Keys, coded.Values).(kvq.LayerCache)
	if len(in) > 1 {
		cache = keyedLayer{cache, in[1]}
	}
	rope := newRotation(Iota(g, shapes.Make(dtypes.Int32, r.b, r.t), 1), r.graphs.model.rope)
	return block(r.graphs.model.own, w, in[0], rope, cache)
}

// codedKey and topKey name graphs of a layer and of what stands behind the layers.
type (
	codedKey struct{ engine.LayerCodes }
	topKey   struct {
		key    any
		shapes string
	}
)

func (codedKey) String() string { return "texts, a layer" }
func (topKey) String() string   { return "texts, behind the layers" }

func (r *reader) Top(ctx context.Context, key any, x engine.Array, inputs []any, of []shapes.Shape, build func(head func(*Node) *Node, x *Node, in []*Node) []*Node) ([]engine.Array, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	hidden := x.(sharded)
	p := r.startOn(r.top, topKey{key, fmt.Sprint(of)}, append([]layout{hidden.layout()}, wholes(of...)...), nil, func(w weightNodes, in []*Node) []*Node {
		head := func(x *Node) *Node {
			return modelNodes{top: w}.logits(rmsNorm(x, w.vector(modelfile.FinalNorm), r.graphs.model.config.RMSNormEps))
		}
		return build(head, in[0], in[1:])
	})
	out, err := r.run(ctx, p, r.top, append([]any{hidden}, inputs...)...)
	return asArrays(out), err
}

func (r *reader) Free() { r.graphs.finalize() }
