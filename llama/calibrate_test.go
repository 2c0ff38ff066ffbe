package llama

import (
	"bytes"
	"context"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/calibration"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// watched is a cache that keeps the queries of a step.
type watched struct {
	kvq.Cache
	layers []*queriesSeen
}

func (c *watched) Layer(layer int) kvq.LayerCache {
	l := &queriesSeen{LayerCache: c.Cache.Layer(layer)}
	c.layers = append(c.layers, l)
	return l
}

func (c *watched) Through(layer int, x *Node, inputs []*Node, decoder kvq.Decoder) *Node {
	return decoder(c.Layer(layer), x, inputs)
}

// queriesOf are the queries [B, H, T, D] of each layer of the whole model, for texts of one length.
func queriesOf(t *testing.T, m *Model, texts [][]tokenizer.Token) (layers [][]float32) {
	t.Helper()
	g := mustGenerator(t, m, kvq.Config{})
	defer g.Finalize()
	b, columns := len(texts), len(texts[0])
	plan, err := g.Plan(b, columns)
	if err != nil {
		t.Fatal(err)
	}
	program := g.programs.start("queries", wholes(shapes.Make(dtypes.Int32, b, columns)), nil, func(w modelNodes, in []*Node) (out []*Node) {
		cache := &watched{Cache: plan.Init(gx.Zeros(in[0].Graph(), shapes.Make(dtypes.Int32, b)))}
		m.hidden(w, in[0], cache, nil)
		for _, layer := range cache.layers {
			out = append(out, layer.queries)
		}
		return out
	})
	if err := program.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, err := g.programs.run(context.Background(), program, texts)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range out {
		queries, err := read[float32](x)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, queries)
	}
	return layers
}

// What a calibration measures layer by layer is what the whole model asks of its cache. It is
// written, found beside the model, and used; without it, and with one of another model, nothing
// falls back to anything.
func TestCalibrate(t *testing.T) {
	testlane.Slow(t, "compiles a layer, a model and two generators")
	config := fakeConfig()
	path := fakeFolder(t, config, fakeTensors(t, config, dtypes.Float32, false))
	files, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m := mustLoad(t, path, LoadOptions{DType: dtypes.Float32})
	defer m.Finalize()
	cache := kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 4, ResidualLength: 4, FeedbackKey: kvq.FeedbackCalibrated}
	_, err = NewGenerator(m, cache)
	wantLine(t, err, "calibrated feedback of keys needs "+path+".kvq-queries, and there is none", "kvq calibrate --model "+path+" --text FILE makes it")

	texts := [][]tokenizer.Token{{1, 4, 5, 6, 7, 8, 9, 10, 3}, {5, 5, 2, 1, 3, 10, 9, 4, 4}}
	done := 0
	q, err := m.Calibrate(context.Background(), texts, func(n, total int) {
		if n < done || total != 18 {
			t.Errorf("%d of %d tokens after %d", n, total, done)
		}
		done = n
	})
	if err != nil || q.Tokens != 18 || done != 18 {
		t.Fatalf("%v after %d of 18 tokens", err, done)
	}
	c := m.Config()
	want := make([]float64, len(q.Means))
	group, columns, dim := c.Heads/c.KVHeads, len(texts[0]), c.HeadDim
	for layer, queries := range queriesOf(t, m, texts) { // [B, H, T, D]
		for at := 0; at < len(queries); at += dim {
			q, kv := queries[at:at+dim], at/dim/columns%c.Heads/group
			for i := range dim {
				for j := range dim {
					want[((layer*c.KVHeads+kv)*dim+i)*dim+j] += float64(q[i]) * float64(q[j]) / float64(18*group)
				}
			}
		}
	}
	for i := range want {
		if math.Abs(want[i]-float64(q.Means[i])) > 1e-4*(1+math.Abs(want[i])) {
			t.Fatalf("element %d is %v, the model's queries give %v", i, q.Means[i], want[i])
		}
	}

	if err := calibration.Write(calibration.Path(path), q); err != nil {
		t.Fatal(err)
	}
	g, err := NewGenerator(m, cache)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Finalize()
	prompt := tokenizer.Batch{IDs: [][]tokenizer.Token{slices.Repeat([]tokenizer.Token{4, 6, 8}, 14)}}
	fed := mustGenerate(t, g, prompt.IDs, nil, GenerateConfig{MaxNewTokens: 1})
	if metrics := int64(2 * 3 * (1 + 1) * 4); fed.Cache.SharedMetric != metrics {
		t.Errorf("the cache holds %d bytes of shared metrics, want %d", fed.Cache.SharedMetric, metrics)
	}
	if len(g.metrics.made) != c.Layers {
		t.Errorf("metrics of %d layers were made, want %d", len(g.metrics.made), c.Layers)
	}

	weights := cache
	weights.FeedbackKey = kvq.FeedbackWeights
	byWeights := mustGenerator(t, m, weights)
	defer byWeights.Finalize()
	for range 2 { // made once
		mustGenerate(t, byWeights, prompt.IDs, nil, GenerateConfig{MaxNewTokens: 1})
	}
	for i, x := range byWeights.metrics.made {
		if x.parts[0].Equal(g.metrics.made[i].parts[0]) {
			t.Errorf("layer %d: the metric of weights is that of the calibration", i)
		}
	}

	other := *q
	other.Model = "another"
	damaged := calibration.Path(path) + "2"
	if err := calibration.Write(damaged, &other); err != nil {
		t.Fatal(err)
	}
	_, err = files.Calibration(damaged)
	wantLine(t, err, damaged, "it was made for another model than "+path)
	data, err := os.ReadFile(calibration.Path(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, bytes.TrimSuffix(data, data[len(data)-1:]), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = files.Calibration(damaged)
	wantLine(t, err, damaged, "want F32 at")
	_, err = files.Calibration(damaged + "3")
	wantLine(t, err, damaged+"3: no such file")
}
