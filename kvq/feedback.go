package kvq

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/rotary"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Feedback names what tells the rounding of a channel how much the errors of the other channels
// matter, so that it makes up for them. The format of the codes, their scales and zero points are
// the same with and without.
type Feedback string

const (
	// NoFeedback rounds each code alone. It is the zero value.
	NoFeedback Feedback = ""
	// FeedbackQueries counts an error of a key by what it does to the scores of the prompt's
	// queries: for each row and key/value head, the mean of q·qᵀ over tokens of the step that
	// starts a cache, at most 256 of them, evenly spaced. It is kept in the cache, as
	// [Memory].Metric, and saved with it. A row without a prompt is coded as without feedback. So
	// is one that was emptied, until a prompt is put in its place.
	FeedbackQueries Feedback = "queries"
	// FeedbackCalibrated counts an error of a key by what it does to the scores of queries that
	// were seen before, in other texts; FeedbackWeights, of queries as the weights that make them
	// suggest. Both come from outside, by [LayerCache].WeighKeys, which has to be called, and
	// differ in how far they are trusted. One metric for all rows is kept in the cache, as
	// [Memory].SharedMetric. A cache that starts without such a step, empty, is coded as without
	// feedback until Insert brings a row to it.
	FeedbackCalibrated Feedback = "calibrated"
	FeedbackWeights    Feedback = "weights"
	// FeedbackMixed is half of FeedbackQueries and half of FeedbackCalibrated, each in units of its
	// mean diagonal: a prompt knows its text, and other texts know what a prompt did not ask. What
	// is kept is as with FeedbackQueries; WeighKeys has to be called. A row without a prompt is
	// coded as with FeedbackCalibrated in the step that starts a cache, and later as without
	// feedback, until a prompt is put in its place.
	FeedbackMixed Feedback = "queries+calibrated"
	// FeedbackOutput counts an error of a value by what it does to the model's output: see
	// [LayerCache].Weigh, which has to be called. It is kept in the cache, once for all rows. A
	// cache that starts without such a step, empty, is coded as without feedback until Insert
	// brings a row to it.
	FeedbackOutput Feedback = "output"
)

// damping is what is added to the diagonal of a metric, in units of its mean. Chosen by the
// goldens' texts (docs/bench-log.md).
var damping = map[Feedback]float64{FeedbackQueries: 0.3, FeedbackCalibrated: 0.1, FeedbackWeights: 0.1, FeedbackMixed: 0.3, FeedbackOutput: 0.3}

// shared tells of feedback for keys whether all rows have one metric, which comes from outside.
func (f Feedback) shared() bool { return f == FeedbackCalibrated || f == FeedbackWeights }

// given tells of feedback for keys whether a metric comes from outside.
func (f Feedback) given() bool { return f.shared() || f == FeedbackMixed }

// NeedsCalibration tells whether a model has to hand over what queries were like in other texts.
func (f Feedback) NeedsCalibration() bool { return f == FeedbackCalibrated || f == FeedbackMixed }

func (f Feedback) check(keys bool, q *numbers.Quantizer, b *backend) error {
	side, want := "Value", []Feedback{FeedbackOutput}
	if keys {
		side, want = "Key", []Feedback{FeedbackQueries, FeedbackMixed, FeedbackCalibrated, FeedbackWeights}
	}
	switch {
	case f == NoFeedback:
		return nil
	case !slices.Contains(want, f):
		return usererr.New("kvq.Config.Feedback%s: want %s or nothing, got %q", side, strings.ReplaceAll(strings.Trim(fmt.Sprintf("%q", want), "[]"), " ", ", "), f)
	case !b.free:
		return usererr.New("kvq.Config.Feedback%s: feedback needs backend %q, got %q", side, Blocks, b.name)
	case !q.Zeros:
		return usererr.New("kvq.Config.Feedback%s: want a quantizer with zero points beside it, got %q", side, q.Name)
	}
	return nil
}

// learns tells whether what comes in the step of a prompt decides how it is coded.
func (l layerPlan) learns() bool { return l.key.Feedback || l.value.Feedback }

// learn makes what feedback needs of a layer, before its prompt is stored: the factor of its keys
// from the prompt's queries [B, H, t, D]. What comes from outside was made by weighKeys and weigh.
func (c *quantizedCache) learn(layer int, queries *Node) {
	l, s, config := c.plan.layers[layer], &c.layers[layer], c.plan.config
	if l.value.Feedback && !c.weighed[layer] {
		exceptions.Panicf("kvq.Attend: nothing says how much errors of values matter in layer %d, want Weigh between Append and Attend: "+
			"kvq.Config.FeedbackValue %q learns from it", layer, FeedbackOutput)
	}
	if l.key.Feedback && config.FeedbackKey.given() && c.keyed[layer] == nil {
		exceptions.Panicf("kvq.Attend: nothing says how much errors of keys matter in layer %d, want WeighKeys between Append and Attend: "+
			"kvq.Config.FeedbackKey %q learns from it", layer, config.FeedbackKey)
	}
	if !l.key.Feedback || config.FeedbackKey.shared() {
		return
	}
	g, d := queries.Graph(), dims(queries)
	start := c.start
	if c.plan.shape.Attention.Cross { // where padding of queries is not known
		start = gx.ZerosLike(start)
	}
	token := gx.GreaterOrEqualScalar(attend.TokenIndex(start, gx.Scalar(g, dtypes.Int32, 0), d[2]), 0)
	if d[2] > metricTokens {
		queries, token = evenly(queries, start, metricTokens)
	}
	given := c.keyed[layer]
	makeMetric := QueryMetric
	if gx.OnCUDA(g) && queries.DType() != dtypes.Float32 {
		if given == nil && config.RotateKeys && c.turns == nil {
			s.keyMetric = packedFactor(shortMetric(numbers.Rotate(queries), token, c.plan.shape.KVHeads), false, damping[config.FeedbackKey])
			return
		}
		makeMetric = shortMetric
	}
	metric := makeMetric(queries, token, c.plan.shape.KVHeads)
	if c.turns != nil {
		metric = rotary.Mean(metric, c.turns, turnedPositions)
	}
	if given != nil {
		metric = mixed(metric, given)
	}
	s.keyMetric = c.plan.packKeys(metric)
}

// turn is [LayerCache.Turn].
func (c *quantizedCache) turn(frequencies []float32) {
	if want := c.plan.shape.HeadDim; 2*len(frequencies) != want {
		exceptions.Panicf("kvq.Turn: %d frequencies, want %d: one for each pair of a head's %d elements", len(frequencies), want/2, want)
	}
	c.turns = frequencies
}

// turnedPositions is over how many positions a metric of queries is a mean where the model turns
// them: those of a prompt see its keys at positions to come, at other angles. A prompt of 64 tokens
// knows a few angles of each pair alone. Chosen on texts of 2,048 tokens (docs/bench-log.md).
const turnedPositions = 2048

// weighKeys is [LayerCache.WeighKeys].
func (c *quantizedCache) weighKeys(layer int, keys func() *Node) {
	if l := c.plan.layers[layer]; !c.fresh || !l.key.Feedback || !c.plan.config.FeedbackKey.given() {
		return
	}
	metric, k, d := keys(), c.plan.shape.KVHeads, c.plan.shape.HeadDim
	plain, packed := shapes.Make(dtypes.Float32, k, d, d), c.plan.KeyMetric()
	switch {
	case metric.Shape().Equal(packed):
	case metric.Shape().Equal(plain):
		metric = Reshape(c.plan.PackMetrics(Reshape(metric, 1, k, d, d)), packed.Dimensions...)
	default:
		exceptions.Panicf("kvq.WeighKeys: %s, want %s: a matrix for each key/value head; or %s of kvq.Plan.PackMetrics", metric.Shape(), plain, packed)
	}
	c.keyed[layer] = metric
	if c.plan.config.FeedbackKey.shared() {
		c.layers[layer].keyMetric = metric
	}
}

// weigh is [LayerCache.Weigh].
func (c *quantizedCache) weigh(layer int, values func() *Node) {
	l := c.plan.layers[layer]
	if !c.fresh || !l.value.Feedback {
		return
	}
	metric, k, d := values(), c.plan.shape.KVHeads, c.plan.shape.valueDim()
	if want := shapes.Make(dtypes.Float32, k, d, d); !metric.Shape().Equal(want) {
		exceptions.Panicf("kvq.Weigh: %s, want %s: a matrix for each key/value head", metric.Shape(), want)
	}
	packed := packedFactor(Reshape(metric, 1, k, d, d), c.plan.config.RotateValues, damping[FeedbackOutput])
	c.layers[layer].valueMetric = Reshape(packed, dims(packed)[1:]...)
	c.weighed[layer] = true
}

func (c *fullCache) weighKeys(int, func() *Node) {}
func (c *fullCache) turn([]float32)              {}
func (c *fullCache) weigh(int, func() *Node)     {}

// checkLearned panics where the prompt of a layer is still to be stored, since nobody attended to
// it.
func (c *quantizedCache) checkLearned() {
	for i, l := range c.plan.layers {
		if c.fresh && l.learns() && !c.stored[i] {
			exceptions.Panicf("kvq.Advance: nothing attended to layer %d, want Attend in the step of the prompt: "+
				"feedback learns from it", i)
		}
	}
}
