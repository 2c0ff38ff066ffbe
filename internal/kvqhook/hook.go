// Package kvqhook reaches what package kvq keeps from its users and this module's benchmarks need.
package kvqhook

import "github.com/gomlx/gomlx/core/graph"

// Synthetic returns the state of a cache that holds tokens made-up tokens in every row, with as
// many of them coded as a real one of that length would have: a context of any length without the
// time to read it. plan is a *kvq.Plan; package kvq sets the function.
var Synthetic func(plan any, g *graph.Graph, tokens int) []*graph.Node
