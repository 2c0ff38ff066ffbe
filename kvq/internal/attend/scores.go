package attend

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
)

// Scores is how a model makes scores of queries and keys:
//
//	score = cap(Scale·q·k) - slope·(position - index) + mask
//	cap(s) = SoftCap·tanh(s/SoftCap)
type Scores struct {
	Scale   float64
	SoftCap float64   // 0: none
	Slopes  []float64 // one for each of H query heads; nil: none
}

// Seen is what a query sees of some tokens, N of them.
type Seen struct {
	Mask     *Node // float32 [B, t, N], or [B, H, t, N]: what is added to scores
	Distance *Node // float32 [B, t, N]: position - index, where there are slopes; else nil
}

// Nodes lists the arrays there are.
func (s Seen) Nodes() []*Node {
	if s.Distance == nil {
		return []*Node{s.Mask}
	}
	return []*Node{s.Mask, s.Distance}
}

// Take reads one Seen off the front of nodes and returns the rest: the way back from Nodes.
func (s Scores) Take(nodes []*Node) (Seen, []*Node) {
	if len(s.Slopes) == 0 {
		return Seen{Mask: nodes[0]}, nodes[1:]
	}
	return Seen{nodes[0], nodes[1]}, nodes[2:]
}

// each applies change to every array of s.
func (s Seen) each(change func(x *Node) *Node) Seen {
	s.Mask = change(s.Mask)
	if s.Distance != nil {
		s.Distance = change(s.Distance)
	}
	return s
}

// of makes scores of products Scale·q·k, float32. fold brings an array of seen beside them.
// Products of BKQ order, [B, K, Q, N], have FoldMask.
func (s Scores) of(products *Node, seen Seen, slopes *Node, fold func(x *Node) *Node) *Node {
	x := products
	if s.SoftCap > 0 {
		x = gx.MulScalar(Tanh(gx.MulScalar(x, 1/s.SoftCap)), s.SoftCap)
	}
	if seen.Distance != nil {
		d := dims(x)
		x = Sub(x, Mul(gx.BroadcastToDims(slopes, d...), gx.BroadcastToDims(fold(seen.Distance), d...)))
	}
	return Add(x, fold(seen.Mask))
}

// Finish makes scores of products Scale·q·k [K, B, Q, N] (rows and heads swapped) or [B, K, Q, N].
func (s Scores) Finish(products *Node, seen Seen, kvHeads int, swapped bool) *Node {
	q := dims(products)[2]
	fold := func(x *Node) *Node {
		x = FoldMask(x, kvHeads, q)
		if swapped {
			x = Transpose(x, 0, 1)
		}
		return x
	}
	var slopes *Node
	if seen.Distance != nil {
		slopes = s.slopes(products.Graph(), kvHeads, q)
		if swapped {
			slopes = Transpose(slopes, 0, 1)
		}
	}
	return s.of(products, seen, slopes, fold)
}

// slopes are those of q queries a key/value head, as [FoldQueries] orders them: [1, K, Q, 1].
func (s Scores) slopes(g *Graph, kvHeads, q int) *Node {
	each := q * kvHeads / len(s.Slopes) // tokens
	list := make([]float32, 0, kvHeads*q)
	for _, slope := range s.Slopes {
		for range each {
			list = append(list, float32(slope))
		}
	}
	return Reshape(Const(g, list), 1, kvHeads, q, 1)
}
