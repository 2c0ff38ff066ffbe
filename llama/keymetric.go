package llama

import (
	"context"
	"slices"
	"sync"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/calibration"
)

// keyMetrics are what feedback is told of all layers' keys from outside: of a calibration, or
// of the weights alone. They are made once, when the first prompt is read.
type keyMetrics struct {
	calibrated *calibration.Queries // read by NewGenerator; nil: not of a calibration

	mu   sync.Mutex
	made []sharded // of each layer, see kvq.Plan.PackMetrics
}

// metricPositions is over how many positions the metric of weights is a mean, fewer where the model
// reads no more.
const metricPositions = 2048

// readCalibration reads what the cache's configuration asks for.
func (g *Generator) readCalibration() (err error) {
	if !g.cache.FeedbackKey.NeedsCalibration() {
		return nil
	}
	if g.model.files == nil {
		return usererr.New("calibrated feedback of keys needs a model that was loaded from files, which kvq calibrate reads")
	}
	g.metrics.calibrated, err = g.model.files.Calibration(g.model.calibration)
	return err
}

// metricLayouts are how the metrics of a plan lie, one for each layer; none where it takes none.
func (g *Generator) metricLayouts(plan *kvq.Plan) []layout {
	shape := plan.KeyMetric()
	if !shape.Ok() {
		return nil
	}
	return slices.Repeat([]layout{g.model.on.across(shape, 0)}, plan.Shape().Layers)
}

// metricKey names the graph that makes them.
type metricKey struct{}

func (metricKey) String() string { return "how much errors of keys matter" }

// meansHeads is the axis of the heads in the means of queries.
const meansHeads = 1

// startMetrics begins to compile the graph of metrics: nothing, or the means of queries [layers, K,
// D, D], to what the cache keeps of each layer.
func (g *Generator) startMetrics(plan *kvq.Plan) program {
	c, out := g.model.own, make([]int, plan.Shape().Layers)
	var in []layout
	if g.cache.FeedbackKey.NeedsCalibration() {
		means := shapes.Make(dtypes.Float32, c.Layers, c.KVHeads, c.HeadDim, c.HeadDim)
		in = append(in, g.model.on.across(means, meansHeads))
	}
	return g.programs.start(metricKey{}, in, out, func(w modelNodes, in []*Node) []*Node {
		var metrics *Node
		if len(in) > 0 {
			metrics = in[0]
		} else {
			var list []*Node
			for _, weights := range w.blocks {
				list = append(list, queryMetric(c, weights, g.model.rope, min(metricPositions, c.MaxPositions)))
			}
			metrics = Stack(list, 0)
		}
		packed := plan.PackMetrics(metrics)
		layers := make([]*Node, c.Layers)
		for i := range layers {
			layers[i] = Reshape(Slice(packed, AxisElem(i)), plan.KeyMetric().Dimensions...)
		}
		return layers
	})
}

// sharedMetrics are the inputs of a prompt's graph beside the prompt, made by the first call.
func (g *Generator) sharedMetrics(ctx context.Context, plan *kvq.Plan, clock *Timing) ([]any, error) {
	if !plan.KeyMetric().Ok() {
		return nil, nil
	}
	m := &g.metrics
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made == nil {
		program := g.startMetrics(plan)
		if err := clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
			return nil, err
		}
		var in []any
		if g.cache.FeedbackKey.NeedsCalibration() {
			c := g.model.config
			means, err := g.model.on.place(tensors.FromFlatDataAndDimensions(m.calibrated.Means, c.Layers, c.KVHeads, c.HeadDim, c.HeadDim), meansHeads)
			if err != nil {
				return nil, err
			}
			defer free(means)
			in = append(in, means)
		}
		var err error
		if m.made, err = g.programs.run(ctx, program, in...); err != nil {
			return nil, err
		}
	}
	list := make([]any, len(m.made))
	for i, x := range m.made {
		list[i] = x
	}
	return list, nil
}

// keyedLayer is a layer of a cache that is told how much errors of keys matter, as soon as it has
// some.
type keyedLayer struct {
	kvq.LayerCache
	metric *Node // see kvq.LayerCache.WeighKeys
}

func (l keyedLayer) Append(keys, values *Node) {
	l.LayerCache.Append(keys, values)
	l.LayerCache.WeighKeys(func() *Node { return l.metric })
}
