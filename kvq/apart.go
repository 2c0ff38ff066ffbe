package kvq

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/ml/model"

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
)

func init() {
	kvqhook.FlushedApart = func(plan any) kvqhook.Apart { return plan.(*Plan).apart() }
	kvqhook.OneLayer = func(plan any, layer int) kvqhook.Layer { return plan.(*Plan).oneLayer(layer) }
}

// apart is [kvqhook.FlushedApart].
func (p *Plan) apart() kvqhook.Apart {
	if !p.config.Quantized() || p.shape.Attention.Cross { // which takes no tokens
		return kvqhook.Apart{Plan: p}
	}
	steps := *p
	steps.flushedApart = true
	return kvqhook.Apart{
		Plan: &steps, Full: p.policy.threshold(),
		Room: func(state []*Node, done *Node) *Node {
			waiting := newQuantizedCache(p, state).waiting()
			if p.shape.OwnLengths {
				waiting = Where(done, gx.Fill(waiting.Graph(), waiting.Shape(), math.MinInt32), waiting)
			}
			return gx.LessThanScalar(gx.ReduceMax(waiting), p.policy.threshold())
		},
		Most: func(length, start, next []int32, done []bool) int {
			most := math.MinInt32
			for row := range start {
				if !p.shape.OwnLengths || done == nil || !done[row] {
					most = max(most, int(length[row%len(length)]-start[row]-next[row]))
				}
			}
			return most
		},
		Flush: func(state []*Node, resting *Node) []*Node {
			c := newQuantizedCache(p, state)
			if resting != nil {
				c.counts = ConvertDType(LogicalNot(resting), dtypes.Int32)
			}
			c.flush()
			return c.Nodes()
		},
	}
}

// oneLayer is [kvqhook.OneLayer]. All sizes are those of the whole cache: a unit of tokens, say, is
// as large as the largest group of any layer.
func (p *Plan) oneLayer(layer int) kvqhook.Layer {
	one := p.toChange()
	one.shape = p.shape.layer(layer)
	kind, own := layerKind{window: one.shape.SlidingWindow}, len(one.shape.sides())
	l := kvqhook.Layer{Plan: &one, Uncoded: kind}
	if p.config.Quantized() {
		kind.plan = p.layers[layer]
		one.layers, one.flushedApart = []layerPlan{kind.plan}, true
		arrays := one.layerArrays(0)
		own, l.Codes = len(arrays), codesAmong(arrays)
	}
	one.listState()
	l.Kind, l.Shared = kind, len(one.state)-own
	return l
}

// codesAmong are the first array of codes and the first one behind them.
func codesAmong(arrays []array) [2]int {
	ofCodes := func(a array) bool {
		switch a.role {
		case roleCodes, roleScales, roleTokenScales, roleZeros:
			return true
		}
		return false
	}
	first := slices.IndexFunc(arrays, ofCodes)
	behind := slices.IndexFunc(arrays[first:], func(a array) bool { return !ofCodes(a) })
	if behind < 0 {
		return [2]int{first, len(arrays)}
	}
	return [2]int{first, first + behind}
}

// apart is how windows are flushed between the steps of a loop. On a GPU several rows flush inside
// of it: they become full at different steps, and leaving the loop for each was not measured there.
func (r *runner) apart(plan *Plan) kvqhook.Apart {
	if plan.shape.Batch > 1 && gpu.Of(r.backend).CUDA() {
		return kvqhook.Apart{Plan: plan}
	}
	return plan.apart()
}

// flushKey names the graph that flushes windows.
type flushKey struct{ batch, capacity int }

// String is what the graph is for.
func (k flushKey) String() string {
	return fmt.Sprintf("making codes, %d rows of %d slots", k.batch, k.capacity)
}

// startFlush begins to compile it: the cache, and which rows rest, bool [B], to the cache.
func (r *runner) startFlush(plan *Plan) program {
	n, b := len(plan.stateShapes), plan.shape.Batch
	inputs := append(plan.stateShapes, shapes.Make(dtypes.Bool, b))
	return r.start(flushKey{b, plan.shape.Capacity}, inputs, n, func(_ *model.Scope, in []*Node) []*Node {
		return plan.apart().Flush(in[:n], in[n])
	})
}

// flush flushes windows that are full, and begins to compile what does so before one of them is:
// more tokens follow. done are the rows that have ended; those with lengths of their own rest then.
func (c *running) flush(ctx context.Context, more int, done []bool) error {
	apart := c.runner.apart(c.plan)
	if apart.Full == 0 {
		return nil
	}
	var counts [3][]int32
	for i := range counts {
		var err error
		if counts[i], err = int32s(c.state.list[i]); err != nil {
			return err
		}
	}
	waiting := apart.Most(counts[0], counts[1], counts[2], done)
	if waiting+more <= apart.Full { // the last token is not read
		return nil
	}
	p := c.runner.startFlush(c.plan)
	if waiting < apart.Full {
		return nil
	}
	if !c.plan.shape.OwnLengths { // no row rests
		done = make([]bool, len(done))
	}
	return c.edit(ctx, c.plan, p, done)
}
