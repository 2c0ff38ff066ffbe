package llama

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/calibration"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// Calibration reads the file that kvq calibrate wrote for this model; path "" is the one beside it
// ([calibration.Path]). Its errors are [ErrInput]: what is missing and how it is made, or what is
// wrong with it.
func (f *Files) Calibration(path string) (*calibration.Queries, error) {
	beside := path == ""
	if beside {
		path = calibration.Path(f.Path())
	}
	q, err := calibration.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && beside:
		return nil, usererr.New("calibrated feedback of keys needs %s, and there is none: kvq calibrate --model %s --text FILE makes it", path, f.Path())
	case errors.Is(err, fs.ErrNotExist):
		return nil, usererr.New("calibration %s: no such file: kvq calibrate --model %s --text FILE --calibration %s makes it", path, f.Path(), path)
	case err != nil:
		return nil, usererr.New("calibration %w", err)
	}
	identity, err := f.Identity()
	if err != nil {
		return nil, err
	}
	if c := f.Config(); q.Model != identity || q.Layers != c.Layers || q.KVHeads != c.KVHeads || q.HeadDim != c.HeadDim {
		return nil, usererr.New("calibration %s: it was made for another model than %s (%d layers of %d key/value heads of %d there, %d of %d of %d here): "+
			"kvq calibrate makes one for this", path, f.Path(), q.Layers, q.KVHeads, q.HeadDim, c.Layers, c.KVHeads, c.HeadDim)
	}
	return q, nil
}

// Calibrate reads texts in full precision and measures how the queries of the model lie: the mean
// of q·qᵀ of each layer and key/value head, after the rotary embedding. Texts longer than 2,048
// tokens are read in pieces. It is for models that were loaded from files; [calibration.Write]
// keeps what it returns, without the names of texts. progress is called after each layer with how
// many tokens are done, of all; nil: nobody is told.
//
// One layer is a graph, run for all of them, so little is compiled. Errors of the input are
// [ErrInput].
func (m *Model) Calibrate(ctx context.Context, texts [][]tokenizer.Token, progress func(done, total int)) (*calibration.Queries, error) {
	if m.files == nil {
		return nil, usererr.New("llama.Model.Calibrate: want a model that was loaded from files")
	}
	identity, err := m.files.Identity()
	if err != nil {
		return nil, err
	}
	c := m.config
	r := &calibrationRun{layerGraphs: newLayerGraphs(&programs{model: m}), ctx: ctx, progress: progress}
	defer r.graphs.finalize()
	for _, text := range texts {
		for len(text) > 0 {
			n := min(len(text), calibration.PieceTokens, c.MaxPositions)
			p, err := newPrompt(tokenizer.Batch{IDs: [][]tokenizer.Token{text[:n]}}, c)
			if err != nil {
				return nil, err
			}
			r.pieces = append(r.pieces, p.resize(generate.PromptColumns(n)))
			r.total, text = r.total+n, text[n:]
		}
	}
	if r.total == 0 {
		return nil, usererr.New("no token to calibrate with, want at least one")
	}
	r.sums = make([]float64, c.Layers*c.KVHeads*c.HeadDim*c.HeadDim)
	for _, p := range r.pieces {
		if err := r.read(p); err != nil {
			return nil, err
		}
	}
	q := &calibration.Queries{Model: identity, Layers: c.Layers, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Tokens: r.total}
	q.Means, err = r.means()
	return q, err
}

// calibrationRun is one Calibrate under way.
type calibrationRun struct {
	layerGraphs
	ctx         context.Context
	pieces      []*prompt
	sums        []float64 // [layers, K, D, D], over tokens and query heads
	done, total int       // tokens
	progress    func(done, total int)
}

// calibrationKey names the graph of a layer, by the columns of a piece.
type calibrationKey int

func (k calibrationKey) String() string { return fmt.Sprintf("texts of %d tokens, a layer", int(k)) }

// read adds the queries of one piece to the sums.
func (r *calibrationRun) read(p *prompt) error {
	c := r.graphs.model.config
	columns := p.length
	out, err := r.run(r.ctx, r.startEmbed(embedKey{layerStep{batch: 1, tokens: columns, fresh: true}}, 1, columns), r.top, p.ids)
	if err != nil {
		return err
	}
	x := out[0]
	defer func() { free(x) }()
	n := c.KVHeads * c.HeadDim * c.HeadDim
	for layer := range c.Layers {
		in := append(wholes(shapes.Make(dtypes.Int32, 1)), x.layout())
		graph := r.startOn(r.shares[layer], calibrationKey(columns), in, []int{whole, 0}, func(w weightNodes, in []*Node) []*Node {
			return r.graphs.model.calibrationLayer(w, in[1], in[0])
		})
		out, err := r.run(r.ctx, graph, r.shares[layer], p.start, x)
		if err != nil {
			return err
		}
		free(x)
		x = out[0]
		sums, err := readAll[float32](out[1])
		free(out[1])
		if err != nil {
			return err
		}
		for i, v := range sums {
			r.sums[layer*n+i] += float64(v)
		}
		if r.progress != nil {
			r.progress(r.done+p.longest*(layer+1)/c.Layers, r.total)
		}
	}
	r.done += p.longest
	return nil
}

// calibrationLayer is one layer of a text x [1, T, hidden] with so many columns of padding, start
// [1]: to the next layer's x, and the sums of q·qᵀ [K, D, D].
func (m *Model) calibrationLayer(w weightNodes, x, start *Node) []*Node {
	c, columns := m.own, x.Shape().Dim(1)
	plan, err := kvq.New(kvq.Config{}, kvq.Shape{Layers: 1, Batch: 1, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
		Capacity: columns, DType: m.dtype, SlidingWindow: c.SlidingWindow})
	if err != nil {
		panic(err) // cannot be: the model was checked
	}
	cache := plan.Init(start)
	rope := newRotation(cache.Positions(columns), m.rope)
	layer := &queriesSeen{LayerCache: cache.Layer(0)}
	x = block(c, w, x, rope, layer)
	cache.Advance()
	slot := Iota(x.Graph(), shapes.Make(dtypes.Int32, 1, columns), 1)
	token := GreaterOrEqual(slot, gx.BroadcastToDims(Reshape(start, 1, 1), 1, columns))
	sums := kvq.QueryMetric(layer.queries, token, c.KVHeads)
	return []*Node{x, Reshape(sums, c.KVHeads, c.HeadDim, c.HeadDim)}
}

// queriesSeen is a layer of a cache that keeps what is asked of it.
type queriesSeen struct {
	kvq.LayerCache
	queries *Node // [B, H, t, D]
}

func (l *queriesSeen) Attend(queries *Node) *Node {
	l.queries = queries
	return l.LayerCache.Attend(queries)
}

// means are those of the sums, alike on both sides of the diagonal.
func (r *calibrationRun) means() ([]float32, error) {
	d, count := r.graphs.model.config.HeadDim, float64(r.total)*float64(r.graphs.model.config.Heads/r.graphs.model.config.KVHeads)
	out := make([]float32, len(r.sums))
	for i := range out {
		row, column := i/d%d, i%d
		mean := (r.sums[i] + r.sums[i-row*d-column+column*d+row]) / 2 / count
		if math.IsNaN(mean) || math.Abs(mean) > math.MaxFloat32 {
			return nil, fmt.Errorf("the model's queries are not numbers: the weights are damaged, or too large for %s (try float32)", r.graphs.model.dtype)
		}
		out[i] = float32(mean)
	}
	return out, nil
}
