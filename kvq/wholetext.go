package kvq

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq/internal/attend"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

func init() {
	kvqhook.CheckWholeText = func(plan any, prompt int) error { return plan.(*Plan).checkWholeText(prompt) }
	kvqhook.WholeText = func(plan any, g *Graph, prompt int, keys, values bool) any {
		return newWholeText(plan.(*Plan), g, prompt, keys, values)
	}
}

// wholeText is a layer that reads texts at once, as if their tokens came one by one after a prompt:
// each token sees as codes what would be codes by then. Nothing is stored.
//
// Which tokens are codes when another one comes is known before: a mask for each. The codes of a
// block are the same whenever they are made, since they depend on its tokens alone, and on what the
// prompt taught.
type wholeText struct {
	inner        *quantizedCache // what is learned of the prompt; it has no arrays
	prompt       int
	keys, values bool // which are read as codes; the others are exact
}

// newWholeText is [kvqhook.WholeText].
func newWholeText(p *Plan, g *Graph, prompt int, keys, values bool) LayerCache {
	zero := gx.Zeros(g, shapes.Make(dtypes.Int32, p.shape.Batch))
	inner := &quantizedCache{plan: p, start: zero, fresh: true, layers: make([]layerState, 1), newKeys: make([]*Node, 1),
		newValues: make([]*Node, 1), stored: make([]bool, 1), keyed: make([]*Node, 1), weighed: make([]bool, 1)}
	return oneLayer{&wholeText{inner, prompt, keys, values}, p.shape.Layout, 0}
}

// checkWholeText is [kvqhook.CheckWholeText].
func (p *Plan) checkWholeText(prompt int) error {
	switch {
	case !p.config.Quantized():
		return nil
	case p.shape.Attention.Cross:
		return usererr.New("cross-attention adds no tokens one by one, want a cache of one sequence")
	case p.policy.codedAfter(prompt, 0)%p.unit != 0:
		return usererr.New("a prompt of %d tokens, of which %d become codes: want a multiple of the per-channel group of %d, to read a text at once",
			prompt, p.policy.codedAfter(prompt, 0), p.unit)
	}
	return nil
}

func (c *wholeText) appendTo(layer int, keys, values *Node) {
	p := c.inner.plan
	checkAppend("quantized", p.shape, 0, layer, keys, values)
	c.inner.newKeys[0], c.inner.newValues[0] = numbers.NarrowTo(keys, p.shape.DType), numbers.NarrowTo(values, p.shape.DType)
}

func (c *wholeText) weighKeys(layer int, keys func() *Node) { c.inner.weighKeys(layer, keys) }
func (c *wholeText) turn(frequencies []float32)             { c.inner.turn(frequencies) }
func (c *wholeText) weigh(layer int, values func() *Node)   { c.inner.weigh(layer, values) }

func (c *wholeText) attendTo(_ int, queries *Node) *Node {
	p, keys, values, start := c.inner.plan, c.inner.newKeys[0], c.inner.newValues[0], c.inner.start
	g, t := queries.Graph(), dims(queries)[2]
	ends := c.ends(t)
	slots := (int(ends[t-1]) - p.sinks + p.block - 1) / p.block * p.block
	if slots <= 0 || !c.keys && !c.values {
		return p.shape.prompt(0, queries, keys, values, start, Masks{})
	}
	c.inner.learn(0, Slice(queries, AxisRange(), AxisRange(), AxisRange(0, c.prompt)))
	s, l := c.inner.layers[0], p.layers[0]
	codedKeys, codedValues := keys, values
	if c.keys {
		codedKeys = c.throughCodes(l.key, keys, slots, s.keyMetric)
	}
	if c.values {
		codedValues = c.throughCodes(l.value, values, slots, s.valueMetric)
	}
	scores := p.shape.scores()
	q := attend.FoldQueries(queries, p.shape.KVHeads, scores.Scale)
	index := attend.TokenIndex(start, gx.Scalar(g, dtypes.Int32, 0), t)
	seen := p.shape.view(p.shape.window(0), index, Masks{}).Of(index)
	// What is codes for a query: tokens from the sinks on, up to its end.
	square := shapes.Make(dtypes.Int32, 1, t, t)
	at := Iota(g, square, 2)
	end := gx.BroadcastToDims(Reshape(Const(g, ends), 1, t, 1), square.Dimensions...)
	asCodes := gx.BroadcastToDims(And(gx.GreaterOrEqualScalar(at, p.sinks), LessThan(at, end)), dims(seen.Mask)...)
	exact, coded := seen, seen
	exact.Mask = Add(seen.Mask, attend.MaskOf(LogicalNot(asCodes)))
	coded.Mask = Add(seen.Mask, attend.MaskOf(asCodes))
	sum := scores.Exact(q, keys, values, exact).Merge(scores.Exact(q, codedKeys, codedValues, coded))
	return attend.UnfoldQueries(sum.Result(), queries)
}

// ends are, for each of t tokens of a text, the index behind the last token that is codes when it
// comes; 0 for those of the prompt, which sees itself exactly.
func (c *wholeText) ends(t int) []int32 {
	p, list := c.inner.plan, make([]int32, t)
	for i := c.prompt; i < t; i++ {
		list[i] = int32(p.sinks + p.policy.codedAfter(c.prompt, i-c.prompt))
	}
	return list
}

// throughCodes codes the first slots tokens behind the sinks of x [B, K, T, D] and decodes them:
// x with these in their places, float32. What stands past the end is not seen.
func (c *wholeText) throughCodes(f codes.Format, x *Node, slots int, metric *Node) *Node {
	p, t := c.inner.plan, dims(x)[2]
	tokens := alignRows(x, c.inner.start, p.sinks, slots)
	decoded := f.Decode(encode(f, tokens, nil, factorOf(metric, p.shape.Batch)))
	if f.Rotate {
		decoded = numbers.Rotate(decoded)
	}
	exact := attend.Float32(x)
	n := min(slots, t-p.sinks)
	parts := []*Node{Slice(decoded, AxisRange(), AxisRange(), AxisRange(0, n))}
	if p.sinks > 0 {
		parts = append([]*Node{Slice(exact, AxisRange(), AxisRange(), AxisRange(0, p.sinks))}, parts...)
	}
	if rest := p.sinks + n; rest < t {
		parts = append(parts, Slice(exact, AxisRange(), AxisRange(), AxisRange(rest, t)))
	}
	return concat(parts, 2)
}
