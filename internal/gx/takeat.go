package gx

import (
	"github.com/gomlx/gomlx/core/graph"
)

// TakeAt picks of each row of x [B, N, ...] what lies at the places at, int32 [B, n]: [B, n, ...].
func TakeAt(x, at *graph.Node) *graph.Node {
	row := graph.Iota(x.Graph(), at.Shape(), 0)
	return graph.Gather(x, graph.Stack([]*graph.Node{row, at}, -1))
}
