package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
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
	// queries: for each row and key/value head, the mean of q·qᵀ over the tokens of the step that
	// starts a cache. It is kept in the cache, as [Memory].Metric, and saved with it. A row without
	// a prompt is coded as without feedback. So is one that was emptied, until a prompt is put in
	// its place.
	FeedbackQueries Feedback = "queries"
	// FeedbackOutput counts an error of a value by what it does to the model's output: see
	// [LayerCache].Weigh, which has to be called. It is kept in the cache, once for all rows. A
	// cache that starts without such a step, empty, is coded as without feedback until Insert
	// brings a row to it.
	FeedbackOutput Feedback = "output"
)

func (f Feedback) check(keys bool, q *numbers.Quantizer, b *backend) error {
	side, want := "Value", FeedbackOutput
	if keys {
		side, want = "Key", FeedbackQueries
	}
	switch {
	case f == NoFeedback:
		return nil
	case f != want:
		return usererr.New("kvq.Config.Feedback%s: want %q or nothing, got %q", side, want, f)
	case !b.free:
		return usererr.New("kvq.Config.Feedback%s: feedback needs backend %q, got %q", side, Blocks, b.name)
	case !q.Zeros:
		return usererr.New("kvq.Config.Feedback%s: want a quantizer with zero points beside it, got %q", side, q.Name)
	}
	return nil
}

// learns tells whether what comes in the step of a prompt decides how it is coded.
func (l layerPlan) learns() bool { return l.key.Feedback || l.value.Feedback }

// What is added to the diagonal of a metric, in units of its mean. Chosen by the goldens' texts
// (docs/bench-log.md).
const (
	queryDamping  = 0.3
	outputDamping = 0.3
)

// learn makes what feedback needs of a layer, before its prompt is stored: the factor of its keys
// from the prompt's queries [B, H, t, D], that of its values was made by weigh.
func (c *quantizedCache) learn(layer int, queries *Node) {
	l, s := c.plan.layers[layer], &c.layers[layer]
	if l.value.Feedback && !c.weighed[layer] {
		exceptions.Panicf("kvq.Attend: nothing says how much errors of values matter in layer %d, want Weigh between Append and Attend: "+
			"kvq.Config.FeedbackValue %q learns from it", layer, FeedbackOutput)
	}
	if !l.key.Feedback {
		return
	}
	g, d := queries.Graph(), dims(queries)
	token := gx.Fill(g, shapes.Make(dtypes.Bool, d[0], d[2]), 1)
	if !c.plan.shape.Attention.Cross { // where padding of queries is not known
		token = gx.GreaterOrEqualScalar(attend.TokenIndex(c.start, gx.Scalar(g, dtypes.Int32, 0), d[2]), 0)
	}
	s.keyMetric = packedFactor(l.key, queryMetric(queries, token, c.plan.shape.KVHeads), queryDamping)
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
	packed := packedFactor(l.value, Reshape(metric, 1, k, d, d), outputDamping)
	c.layers[layer].valueMetric = Reshape(packed, dims(packed)[1:]...)
	c.weighed[layer] = true
}

func (c *fullCache) weigh(int, func() *Node) {}

// packedFactor makes of a metric [B, K, D, D] of keys or values what the cache keeps of it.
func packedFactor(f codes.Format, metric *Node, damping float64) *Node {
	if f.Rotate {
		metric = numbers.Rotate(Transpose(numbers.Rotate(metric), -1, -2))
	}
	return numbers.PackFactor(numbers.Factor(metric, gx.Fill(metric.Graph(), shapes.Make(dtypes.Float32, dims(metric)[0], 1, 1, 1), damping)))
}

// queryMetric is the sum of q·qᵀ over the queries [B, H, t, D] of tokens, bool [B, t], for each
// key/value head: [B, K, D, D] float32.
//
// The sum is made in float64, so that a row has the same codes whatever padding and other rows it
// is computed with.
func queryMetric(queries, token *Node, heads int) *Node {
	d := dims(queries)
	token = gx.BroadcastToDims(Reshape(token, d[0], 1, d[2], 1), d...)
	queries = ConvertDType(queries, dtypes.Float32)
	queries = Where(And(token, IsFinite(queries)), queries, gx.ZerosLike(queries))
	q := ConvertDType(Reshape(queries, d[0], heads, d[1]/heads*d[2], d[3]), dtypes.Float64)
	metric := Dot(q, q).General([]int{2}, []int{0, 1}, []int{2}, []int{0, 1})
	return ConvertDType(metric, dtypes.Float32)
}

// factorOf is what codes are made with: float32 [B, K, D, D] of [B, K, …] or [K, …] packed, nil
// without feedback.
func factorOf(packed *Node, rows int) *Node {
	if packed == nil {
		return nil
	}
	d := dims(packed)
	if len(d) == 3 {
		packed = gx.BroadcastToDims(Reshape(packed, 1, d[0], d[1], d[2]), rows, d[0], d[1], d[2])
	}
	return numbers.UnpackFactor(packed)
}

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
