package evaluate

import (
	"context"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// mostRead is how many tokens of a text are read at once: the scores of all of them with one
// another are in memory.
const mostRead = 2048

// reading compares caches with full precision, whose predictions are made once, by reading texts at
// once, a layer after the other, instead of token by token: what it finds is what [Score] finds, up
// to rounding.
type reading struct {
	*forcedTexts
	generator   *llama.Generator
	reader      engine.Reader
	columns     int            // of the longest text
	predictions []engine.Array // of full precision, [B·block, V] for each block of tokens
	full        []Scores       // NLL alone
}

// newReading takes caches whose layers have the settings of base, which has no LayerBits.
func newReading(ctx context.Context, model *llama.Model, texts [][]tokenizer.Token, base kvq.Config, o Options) (*reading, error) {
	t, err := newForcedTexts(model.Config(), texts, o)
	if err != nil {
		return nil, err
	}
	r := &reading{forcedTexts: t, columns: t.prefill + t.total}
	if r.columns > mostRead {
		return nil, usererr.New("a text of %d tokens, want at most %d to read at once", r.columns, mostRead)
	}
	if r.generator, err = llama.NewGenerator(model, base); err != nil {
		return nil, err
	}
	if r.reader, err = engine.NewReader(r.generator, texts, t.prefill); err != nil {
		r.generator.Finalize()
		return nil, err
	}
	x, err := r.reader.Embed(ctx)
	for layer := 0; err == nil && layer < model.Config().Layers; layer++ {
		x, err = r.layer(ctx, layer, engine.LayerCodes{}, x, true)
	}
	if err == nil {
		r.full, err = r.score(ctx, x, scoreReference)
		x.Free()
	}
	if err != nil {
		r.free()
		return nil, err
	}
	return r, nil
}

func (r *reading) free() {
	for i := range r.predictions {
		free(&r.predictions[i])
	}
	r.reader.Free()
	r.generator.Finalize()
}

// layer runs a layer over x, which it frees where it is the caller's no more.
func (r *reading) layer(ctx context.Context, number int, coded engine.LayerCodes, x engine.Array, frees bool) (engine.Array, error) {
	out, err := r.reader.Layer(ctx, number, coded, x)
	if frees {
		x.Free()
	}
	return out, err
}

// scoresOf are those of texts whose layers from first on are coded so, x being what the first of
// them reads. x stays the caller's.
func (r *reading) scoresOf(ctx context.Context, first int, coded []engine.LayerCodes, x engine.Array) ([]Scores, error) {
	var err error
	for i, c := range coded {
		if x, err = r.layer(ctx, first+i, c, x, i > 0); err != nil {
			return nil, err
		}
	}
	defer x.Free()
	return r.score(ctx, x, scoreTested)
}

// candidate measures a cache: base with bits of its own in each layer.
func (r *reading) candidate(ctx context.Context, coded []engine.LayerCodes, c *Candidate) error {
	x, err := r.reader.Embed(ctx)
	if err != nil {
		return err
	}
	defer x.Free()
	rows, err := r.scoresOf(ctx, 0, coded, x)
	if err != nil {
		return err
	}
	all := join(rows)
	c.KL, c.Perplexity, c.Agreement = all.MeanKL(), all.Perplexity(), all.Agreement()
	return nil
}

// scoreKey names the graph that scores a block of tokens.
type scoreKey struct{ kind kind }

// score compares what comes out of the last layer, a block of tokens at a time.
func (r *reading) score(ctx context.Context, x engine.Array, k kind) ([]Scores, error) {
	b, rows := len(r.texts), make([]Scores, len(r.texts))
	for i, from := 0, 0; from < r.total; i, from = i+1, from+block {
		// Token prefill+from is predicted by the one before it. The last block is shifted back so
		// that it is whole.
		at := max(0, min(r.prefill-1+from, r.columns-1-block))
		n := min(block, r.columns-1)
		targets := make([]int32, 0, b*n)
		for _, text := range r.texts {
			for j := range n {
				id := r.padID
				if at+j+1 < len(text) {
					id = text[at+j+1]
				}
				targets = append(targets, int32(id))
			}
		}
		in := []any{int32(at), tensors.FromFlatDataAndDimensions(targets, b*n)}
		of := []shapes.Shape{shapes.Make(dtypes.Int32), shapes.Make(dtypes.Int32, b*n)}
		if k == scoreTested {
			in, of = append(in, r.predictions[i]), append(of, shapes.Make(dtypes.Float32, b*n, r.vocab))
		}
		out, err := r.reader.Top(ctx, scoreKey{k}, x, in, of, func(head func(*Node) *Node, x *Node, in []*Node) []*Node {
			zero := gx.Scalar(x.Graph(), dtypes.Int32, 0)
			hidden := x.Shape().Dim(2)
			x = gx.DynamicSlice(x, []*Node{zero, in[0], zero}, []int{b, n, hidden})
			var reference *Node
			if k == scoreTested {
				reference = in[2]
			}
			return score(head(Reshape(x, b*n, hidden)), in[1], reference).list(k)
		})
		if err != nil {
			return nil, err
		}
		if k == scoreReference {
			r.predictions, out = append(r.predictions, out[1]), out[:1]
		}
		if err := r.take(rows, at, n, r.prefill-1+from, k, out); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// take adds a block's scores [B·n], of tokens at and following, to rows: those from a token on that
// are scored, as far as texts go. It frees out.
func (r *reading) take(rows []Scores, at, n, from int, k kind, out []engine.Array) error {
	defer func() {
		for _, a := range out {
			a.Free()
		}
	}()
	nll, err := out[0].Float32()
	if err != nil {
		return err
	}
	var kl []float32
	var top1 []bool
	if k == scoreTested {
		if kl, err = out[1].Float32(); err != nil {
			return err
		}
		if top1, err = out[2].Bool(); err != nil {
			return err
		}
	}
	for i, text := range r.texts {
		for j := from - at; j < n && at+j+1 < len(text); j++ {
			s := &rows[i]
			s.NLL = append(s.NLL, nll[i*n+j])
			if k == scoreTested {
				s.KL, s.Top1 = append(s.KL, kl[i*n+j]), append(s.Top1, top1[i*n+j])
			}
		}
	}
	return nil
}
