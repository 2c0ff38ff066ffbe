package attend

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// View is what the queries of a step see of tokens that are known by their indices.
type View struct {
	Position *Node // int32 [B, t]: index of each query in its row
	Window   int   // newest tokens that a query sees, itself included; 0: no limit

	Distances bool // Seen has distances, for slopes
}

// Of is what the queries see of stored tokens: index [B, N] int32, see [Mask].
func (v View) Of(index *Node) Seen {
	seen := Seen{Mask: Mask(index, v.Position, v.Window)}
	if v.Distances {
		b, n, t := index.Shape().Dim(0), index.Shape().Dim(1), v.Position.Shape().Dim(1)
		index = gx.BroadcastToDims(Reshape(index, b, 1, n), b, t, n)
		position := gx.BroadcastToDims(Reshape(v.Position, b, t, 1), b, t, n)
		seen.Distance = ConvertDType(Sub(position, index), dtypes.Float32)
	}
	return seen
}

// nodes are the arrays of v that a loop has to carry beside the keys' index.
func (v View) nodes(index *Node) []*Node {
	if v.Position == index {
		return nil
	}
	return []*Node{v.Position}
}

// take is the way back from nodes, inside of a loop that also carries index.
func (v View) take(index *Node, nodes []*Node) View {
	v.Position = index
	if len(nodes) > 0 {
		v.Position = nodes[0]
	}
	return v
}

// queries is the view of n queries, from one (int32 scalar) on.
func (v View) queries(from *Node, n int) View {
	zero := gx.Scalar(from.Graph(), dtypes.Int32, 0)
	v.Position = gx.DynamicSlice(v.Position, []*Node{zero, from}, []int{dims(v.Position)[0], n})
	return v
}
