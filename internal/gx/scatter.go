package gx

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/private"
)

// ScatterSet is x with what lies at places exchanged for updates. Places outside of x are left out.
// No two of the others may be the same.
//
//	x [a, b, …, rest…], places int32 [N…, axes]: the first axes of x, updates [N…, rest…]
//
// XLA writes it in place where x is used by nothing else, and on a GPU by one kernel. It needs no
// other layout of x, because the axes that are indexed come first.
//
// GoMLX v0.28.16 has sums, largest and smallest numbers of old and new alone, and its ScatterUpdate
// reads and writes all of x. So it is built as a sum, in whose program the new number is what is
// returned. It panics on a backend that is not go-xla's.
func ScatterSet(x, places, updates *graph.Node) (out *graph.Node) {
	g := x.Graph()
	if !onXLA(g) {
		exceptions.Panicf("gx.ScatterSet: %v", errNoXLA)
	}
	withOwnCaches(g, func() { out = graph.ScatterSum(x, places, updates, false, true) })
	scatter := statementOf(out)
	if scatter == nil || len(scatter.FunctionParameters) != 1 {
		exceptions.Panicf("gx.ScatterSet: %v", private.Error("a scatter is not in the program where it was written"))
	}
	combine := scatter.FunctionParameters[0]
	combine.Statements = combine.Statements[len(combine.Statements)-1:]
	combine.Statements[0].Inputs[0] = combine.Inputs[1]
	return out
}
