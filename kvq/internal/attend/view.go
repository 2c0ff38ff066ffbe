package attend

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// View is what the queries of a step see of tokens that are known by their indices.
type View struct {
	Position *Node // int32 [B, t]: index of each query in its row; [B, 1]: of all of them
	Window   int   // newest tokens that a query sees, itself included; 0: no limit

	Distances bool // Seen has distances, for slopes

	// Added is what is added to scores by a token's index, float32 [B, H, t, n], each axis but the
	// last also 1; nil: nothing. Where it is All, it takes the place of causality and of the
	// window, and tokens from n on are not seen.
	Added *Node
	All   bool

	tree *tree // nil: new tokens see those before them
}

// tree is a step's new tokens as branches: see [View.Branch].
type tree struct {
	sees   *Node // bool [B or 1, t, t]: the new tokens that a query sees, itself among them
	first  *Node // int32 [B]: index of the first new token
	places *Node // int32 [B, T]: where in its row each new token stands
}

// Branch is a view in which the step's new tokens, whose indices are v.Position, see those of one
// another that sees says, bool [B or 1, t, t]. A token stands as many places behind the older
// tokens as it sees new ones.
func (v View) Branch(sees *Node) View {
	d := dims(v.Position)
	b, t := d[0], d[1]
	first := Reshape(Slice(v.Position, AxisRange(), AxisRange(0, 1)), b)
	depth := gx.ReduceSum(ConvertDType(sees, dtypes.Int32), 2) // [B or 1, t]
	places := Add(gx.BroadcastToDims(Reshape(gx.AddScalar(first, -1), b, 1), b, t), gx.BroadcastToDims(depth, b, t))
	v.Position, v.tree = places, &tree{sees, first, places}
	return v
}

// Older is the view of tokens that came before the step.
func (v View) Older() View {
	v.tree = nil
	return v
}

// Of is what the queries see of tokens: index [B, N] int32, see [Mask].
func (v View) Of(index *Node) Seen {
	var seen Seen
	switch {
	case v.tree != nil:
		seen.Mask = v.branches(index)
	case !v.All:
		seen.Mask = Mask(index, v.Position, v.Window)
	}
	if v.Added != nil {
		seen.Mask = v.added(index, seen.Mask)
	}
	if v.Distances {
		if v.tree != nil {
			index, _ = v.tree.place(index)
		}
		b, n, t := index.Shape().Dim(0), index.Shape().Dim(1), v.Position.Shape().Dim(1)
		index = gx.BroadcastToDims(Reshape(index, b, 1, n), b, t, n)
		position := gx.BroadcastToDims(Reshape(v.Position, b, t, 1), b, t, n)
		seen.Distance = ConvertDType(Sub(position, index), dtypes.Float32)
	}
	return seen
}

// place is where in their rows tokens stand, and which of them are new, by their number among
// these: index [B, N] int32 -> places and number, int32 [B, N].
func (tr tree) place(index *Node) (places, number *Node) {
	d := dims(index)
	number = Sub(index, gx.BroadcastToDims(Reshape(tr.first, d[0], 1), d...))
	own := inside(number, dims(tr.places)[1])
	at := Reshape(takeTokens(Reshape(tr.places, d[0], 1, 1, dims(tr.places)[1]), number), d...)
	return Where(own, at, index), number
}

// branches is [Mask] where new tokens are a tree.
func (v View) branches(index *Node) *Node {
	places, number := v.tree.place(index)
	b, n, t := dims(index)[0], dims(index)[1], dims(v.Position)[1]
	wide := func(x *Node) *Node { return gx.BroadcastToDims(Reshape(x, b, 1, n), b, t, n) }
	sees := takeTokens(Reshape(v.tree.sees, dims(v.tree.sees)[0], 1, t, dims(v.tree.sees)[2]), number)
	known := gx.GreaterOrEqualScalar(index, 0)
	own := inside(number, dims(v.tree.sees)[2])
	older := visibleTokens(index, v.Position, 0)
	visible := Where(wide(own), And(wide(known), Reshape(sees, b, t, n)), older)
	if v.Window > 0 {
		oldest := gx.AddScalar(gx.BroadcastToDims(Reshape(v.Position, b, t, 1), b, t, n), 1-v.Window)
		visible = And(visible, GreaterOrEqual(wide(places), oldest))
	}
	return MaskOf(visible)
}

// added is v.Added for stored tokens, beside mask [B, t, N] where there is one: [B, t, N], or
// [B, H, t, N].
func (v View) added(index, mask *Node) *Node {
	b, n, t := dims(index)[0], dims(index)[1], max(dims(v.Position)[1], dims(v.Added)[2])
	fill := 0.0
	if v.All {
		fill = Masked
	}
	x := takeTokens(v.Added, index) // [B, H or 1, t or 1, N]
	h := dims(x)[1]
	x = gx.BroadcastToDims(x, b, h, t, n)
	known := inside(index, dims(v.Added)[3])
	x = Where(gx.BroadcastToDims(Reshape(known, b, 1, 1, n), b, h, t, n), x, gx.Fill(x.Graph(), x.Shape(), fill))
	if mask != nil {
		x = Add(x, gx.BroadcastToDims(Reshape(mask, b, 1, dims(mask)[1], n), b, h, t, n))
	}
	if h == 1 {
		return Reshape(x, b, t, n)
	}
	return x
}

// inside says which indices (int32) are at least 0 and below n.
func inside(index *Node, n int) *Node {
	return And(gx.GreaterOrEqualScalar(index, 0), gx.LessThanScalar(index, n))
}

// takeTokens picks what x [B or 1, H, t, n] has of tokens, by their indices at [B, N] int32:
// [B, H, t, N]. Indices outside of it give some token's.
func takeTokens(x, at *Node) *Node {
	d := dims(x)
	at = gx.MinScalar(gx.MaxScalar(at, 0), d[3]-1)
	if d[0] == 1 {
		x = Reshape(TransposeAllAxes(x, 0, 3, 1, 2), d[3], d[1], d[2])
		return TransposeAllAxes(Gather(x, InsertAxes(at, -1)), 0, 2, 3, 1)
	}
	return TransposeAllAxes(gx.TakeAt(TransposeAllAxes(x, 0, 3, 1, 2), at), 0, 2, 3, 1)
}

// arrays are those of v that there are, without a position that is also the index of the keys.
func (v *View) arrays(index *Node) []**Node {
	var list []**Node
	if v.Position != index {
		list = append(list, &v.Position)
	}
	if v.Added != nil {
		list = append(list, &v.Added)
	}
	if v.tree != nil {
		list = append(list, &v.tree.sees, &v.tree.first, &v.tree.places)
	}
	return list
}

// nodes are what a loop has to carry of v beside index, that of the keys.
func (v View) nodes(index *Node) []*Node {
	var nodes []*Node
	for _, x := range v.arrays(index) {
		nodes = append(nodes, *x)
	}
	return nodes
}

// take is the way back from nodes: carried are what an index and nodes became inside of a loop.
func (v View) take(index, carriedIndex *Node, carried []*Node) View {
	if v.tree != nil {
		own := *v.tree
		v.tree = &own
	}
	arrays := v.arrays(index)
	if v.Position == index {
		v.Position = carriedIndex
	}
	for i, x := range arrays {
		*x = carried[i]
	}
	return v
}

// queries is the view of n queries, from one (int32 scalar) on.
func (v View) queries(from *Node, n int) View {
	zero := gx.Scalar(from.Graph(), dtypes.Int32, 0)
	if d := dims(v.Position); d[1] > 1 {
		v.Position = gx.DynamicSlice(v.Position, []*Node{zero, from}, []int{d[0], n})
	}
	if v.Added != nil && dims(v.Added)[2] > 1 {
		d := dims(v.Added)
		v.Added = gx.DynamicSlice(v.Added, []*Node{zero, zero, from, zero}, []int{d[0], d[1], n, d[3]})
	}
	if v.tree != nil {
		own, d := *v.tree, dims(v.tree.sees)
		own.sees = gx.DynamicSlice(own.sees, []*Node{zero, from, zero}, []int{d[0], n, d[2]})
		v.tree = &own
	}
	return v
}
