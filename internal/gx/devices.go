package gx

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/gomlx/core/graph"
)

// Spread reports whether several devices run a graph, each on numbers of its own
// ([graph.Exec.SPMD]).
func Spread(g *graph.Graph) bool { return g.DistributedStrategy() == distributed.SPMD }

// Sharing is among how many devices XLA's partitioner shares a graph ([graph.Exec.AutoSharding]): 1
// for a graph of one device, also where it is [Spread].
//
// The partitioner replicates a custom call, since it does not know how to cut it, and what it is to
// cut it has to see whole.
func Sharing(g *graph.Graph) int {
	if Spread(g) {
		return 1
	}
	return g.NumDevices()
}

// SumOverDevices adds x of all devices that a graph is [Spread] over: every one gets the same sum.
func SumOverDevices(x *graph.Node) *graph.Node {
	return x.Graph().Distributed().AllReduceOne(x, compute.ReduceOpSum)
}
