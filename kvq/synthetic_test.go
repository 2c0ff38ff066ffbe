package kvq_test

import (
	"testing"

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
			plan := newPlan(t, config, c.shape(2, suiteCapacity))
			g := NewGraph(testbackend.Go(t), c.name)
			nodes := kvqhook.Synthetic(plan, g, 100)
			for i, a := range plan.Arrays() {
				if !nodes[i].Shape().Equal(a.Shape) {
					t.Errorf("%s (%s): array %s is %s, want %s", c.name, config, a.Name, nodes[i].Shape(), a.Shape)
				}
			}
			g.Finalize()
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
