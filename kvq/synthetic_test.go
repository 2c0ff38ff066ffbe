package kvq_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// The made-up state that benchmarks use is one of its plan, whatever the cache. Nothing is
// compiled.
func TestSyntheticState(t *testing.T) {
	for _, c := range suiteCases(t) {
		for _, config := range []Config{c.fitted(), withTokensWherePossible(c.fitted())} {
			for _, own := range []bool{false, true} {
				shape := c.shape(2, suiteCapacity)
				shape.OwnLengths = own
				plan := newPlan(t, config, shape)
				g := NewGraph(testbackend.Go(t), c.name)
				nodes := kvqhook.Synthetic(plan, g, 100)
				for i, a := range plan.Arrays() {
					if !nodes[i].Shape().Equal(a.Shape) {
						t.Errorf("%s (%s), own lengths %v: array %s is %s, want %s", c.name, config, own, a.Name, nodes[i].Shape(), a.Shape)
					}
				}
				g.Finalize()
			}
		}
	}
}

// Of rows with lengths of their own each holds one token less than the one before, and every token
// lies in one place. A window of 8 takes part of a block, so that rows differ in what is coded.
func TestSyntheticRows(t *testing.T) {
	config := Config{Backend: Blocks, NBits: 4, QGroupSize: 32, ResidualLength: 8}
	const tokens, rows = 41, 3
	plan := newPlan(t, config, Shape{Layers: 1, Batch: rows, KVHeads: 1, HeadDim: 32, Capacity: 128, DType: dtypes.Float32, OwnLengths: true})
	held := MustNewExec(testbackend.XLA(t), func(one *Node) []*Node {
		h := kvqhook.Contents(plan, kvqhook.Synthetic(plan, one.Graph(), tokens))
		return []*Node{h.CodeIndex, h.ExactIndex}
	}).MustExec(int32(0))
	for row := range rows {
		times := make([]int, tokens)
		for _, list := range held {
			for _, token := range list.Value().([][]int32)[row] {
				if token >= 0 {
					times[token]++
				}
			}
		}
		for token, n := range times {
			if want := min(1, max(0, tokens-row-token)); n != want {
				t.Errorf("row %d: token %d lies in %d places, want %d", row, token, n, want)
			}
		}
	}
}

func withTokensWherePossible(c Config) Config {
	with := c
	if with.TokenScales = true; with.Validate(64) == nil {
		return with
	}
	return c
}
