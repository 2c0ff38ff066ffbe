package nb

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Head is a table of numbers: a row for each token, a column for each channel.
type Head [][]float64

// Layer is what a cache keeps of one layer of one text, head by head.
type Layer struct{ Keys, Values []Head }

// KeysOf reads a text with a model and returns the keys (turned to their positions, as attention
// reads them) and values that the layers asked for leave in the cache, which has to be a
// full-precision one. The public packages show no cache that package llama keeps.
func KeysOf(ctx context.Context, g *llama.Generator, ids []tokenizer.Token, layers ...int) (out []Layer) {
	if g.CacheConfig().Quantized() {
		Check(fmt.Errorf("nb.KeysOf: want a generator with a full-precision cache, got %s", g.CacheConfig()))
	}
	batch := tokenizer.Batch{IDs: [][]tokenizer.Token{ids}}
	seen := func(plan *kvq.Plan, arrays []*tensors.Tensor) (err error) {
		state := make([]any, len(arrays))
		for i, a := range arrays {
			state[i] = a
		}
		out, err = layersOf(g.Model().Backend(), state, func(state []*graph.Node) []*graph.Node {
			contents := kvqhook.Contents(plan, state)
			out := []*graph.Node{contents.ExactIndex}
			for _, i := range layers {
				out = append(out, contents.Layers[i].Keys.Exact, contents.Layers[i].Values.Exact)
			}
			return out
		})
		return err
	}
	_, err := engine.Generate(ctx, g, batch, llama.GenerateConfig{MaxNewTokens: 1, MinNewTokens: 1}, seen)
	Check(err)
	return out
}

// Kept is what a quantized cache makes of a layer. Tokens that it holds in full precision are left
// out: they are the newest, or sinks.
type Kept struct {
	Codes, Back  Layer // the codes, and the numbers that they stand for
	BitsPerValue float64
	// Words are the packed codes of the first head's keys: word i of token t, of the first 32, is
	// Words[i][t]. nil where they do not lie in words of 32 bits.
	Words [][]uint32
}

// Tokens is how many are in codes.
func (k Kept) Tokens() int { return len(k.Back.Keys[0]) }

// Through puts the keys and values of a text into a real cache of a configuration, as a prompt, and
// returns what it keeps.
func Through(backend compute.Backend, config kvq.Config, layer Layer) Kept {
	kept, err := through(backend, config, layer)
	Check(err)
	return kept
}

func through(backend compute.Backend, config kvq.Config, layer Layer) (kept Kept, err error) {
	if !config.Quantized() {
		return kept, fmt.Errorf("nb.Through: want a quantized cache, got full precision")
	}
	tokens, dim := len(layer.Keys[0]), len(layer.Keys[0][0])
	plan, err := kvq.New(config, kvq.Shape{Layers: 1, Batch: 1, KVHeads: len(layer.Keys), HeadDim: dim, Capacity: tokens, DType: dtypes.Float32})
	if err != nil {
		return kept, err
	}
	kept.BitsPerValue = plan.BitsPerValue()
	inputs := []any{[]int32{0}, [][][][]float32{rows32(layer.Keys)}, [][][][]float32{rows32(layer.Values)}}
	fill := func(in []*graph.Node) []*graph.Node {
		cache := plan.Init(in[0])
		cache.Layer(0).Append(in[1], in[2])
		cache.Advance()
		return cache.Nodes()
	}
	layers, err := layersOf(backend, inputs, func(in []*graph.Node) []*graph.Node {
		contents := kvqhook.Contents(plan, fill(in))
		keys, values := contents.Layers[0].Keys, contents.Layers[0].Values
		return []*graph.Node{contents.CodeIndex, keys.Codes, values.Codes, keys.Decoded, values.Decoded}
	})
	if err != nil {
		return kept, err
	}
	kept.Codes, kept.Back = layers[0], layers[1]
	packed := slices.IndexFunc(plan.Shapes(), func(s shapes.Shape) bool { return s.Rank() == 5 && s.DType == dtypes.Uint32 })
	if packed < 0 {
		return kept, nil
	}
	out, err := call(backend, inputs, func(in []*graph.Node) []*graph.Node { return fill(in)[packed : packed+1] })
	if err != nil {
		return kept, err
	}
	// [N, B, K·parts, words, 32]
	flat, err := tensors.CopyFlatData[uint32](out[0])
	if err != nil {
		return kept, err
	}
	const lanes = 32
	for i := range out[0].Shape().Dimensions[3] {
		kept.Words = append(kept.Words, flat[i*lanes:(i+1)*lanes])
	}
	return kept, nil
}

// layersOf calls a graph that returns which token each slot holds, int32 [1, C], and then keys and
// values in turn, [1, K, C, D]: a layer for each pair.
func layersOf(backend compute.Backend, inputs []any, build func(in []*graph.Node) []*graph.Node) (layers []Layer, err error) {
	out, err := call(backend, inputs, build)
	if err != nil {
		return nil, err
	}
	index, err := tensors.CopyFlatData[int32](out[0])
	if err != nil {
		return nil, err
	}
	var sides [][]Head
	for _, t := range out[1:] {
		flat, err := tensors.CopyFlatData[float32](t)
		if err != nil {
			return nil, err
		}
		sides = append(sides, tables(flat, t.Shape().Dimensions, index))
	}
	for i := 0; i < len(sides); i += 2 {
		layers = append(layers, Layer{sides[i], sides[i+1]})
	}
	return layers, nil
}

// tables are the tokens of an array [1, K, C, D] in their order, head by head. Slots without a
// token are left out.
func tables(flat []float32, dims []int, index []int32) []Head {
	heads, slots, dim := dims[1], dims[2], dims[3]
	first, n := int32(0), 0
	for _, token := range index {
		if token >= 0 {
			if n == 0 || token < first {
				first = token
			}
			n++
		}
	}
	out := make([]Head, heads)
	for k := range out {
		out[k] = make(Head, n)
		for slot, token := range index {
			if token < 0 {
				continue
			}
			row := make([]float64, dim)
			for d := range row {
				row[d] = float64(flat[(k*slots+slot)*dim+d])
			}
			out[k][token-first] = row
		}
	}
	return out
}

func call(backend compute.Backend, inputs []any, build func(in []*graph.Node) []*graph.Node) ([]*tensors.Tensor, error) {
	exec, err := graph.NewExec(backend, build)
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	return exec.Call(inputs...)
}

func rows32(heads []Head) [][][]float32 {
	out := make([][][]float32, len(heads))
	for k, head := range heads {
		for _, row := range head {
			narrow := make([]float32, len(row))
			for d, x := range row {
				narrow[d] = float32(x)
			}
			out[k] = append(out[k], narrow)
		}
	}
	return out
}
