package pick

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// History is what the penalty for repetitions has to know of each row's text. It goes through the
// decode loop as state: a pick changes a count or two, and nothing comes from the host.
type History struct {
	Counts *Node // [B, V] int32: how often a token stands in the window
	Recent *Node // [B, Window] int32, the window as a ring; nil where all tokens count
}

// Nodes are the history as loop state; none without a penalty. From is their inverse.
func (h History) Nodes() []*Node {
	switch {
	case h.Counts == nil:
		return nil
	case h.Recent == nil:
		return []*Node{h.Counts}
	}
	return []*Node{h.Counts, h.Recent}
}

func (k Kind) historyShapes(b int) []shapes.Shape {
	list := []shapes.Shape{shapes.Make(dtypes.Int32, b, k.Penalty)}
	if k.Window > 0 {
		list = append(list, shapes.Make(dtypes.Int32, b, k.Window))
	}
	return list
}

func (k Kind) history(nodes []*Node) History {
	h := History{Counts: nodes[0]}
	if k.Window > 0 {
		h.Recent = nodes[1]
	}
	return h
}

// WithHistory is in with the history that stands in the loop's state now.
func (k Kind) WithHistory(in Inputs, nodes []*Node) Inputs {
	if k.Penalty > 0 {
		in.History = k.history(nodes)
	}
	return in
}

// After is the history after a pick: token [B] int32 is the newest of each row, step counts the
// picks of this call. The ring has the oldest token at place step mod Window, where the newest
// goes; a place that holds none has -1.
func (h History) After(token, step *Node) History {
	if h.Counts == nil {
		return h
	}
	s := h.Counts.Shape()
	ids := Iota(token.Graph(), s, 1)
	is := func(token *Node) *Node {
		return ConvertDType(Equal(ids, gx.BroadcastToDims(Reshape(token, s.Dim(0), 1), s.Dimensions...)), dtypes.Int32)
	}
	counts := Add(h.Counts, is(token))
	if h.Recent == nil {
		return History{Counts: counts}
	}
	zero := gx.Scalar(token.Graph(), dtypes.Int32, 0)
	at := []*Node{zero, Rem(step, gx.Scalar(token.Graph(), dtypes.Int32, h.Recent.Shape().Dim(1)))}
	oldest := gx.DynamicSlice(h.Recent, at, []int{s.Dim(0), 1})
	return History{
		Counts: Sub(counts, is(Reshape(oldest, s.Dim(0)))),
		Recent: DynamicUpdateSlice(h.Recent, Reshape(token, s.Dim(0), 1), at),
	}
}

// penalize makes tokens of the text so far less likely, each once however often it stands there: a
// positive logit is divided by the penalty, another multiplied with it (Keskar et al. 2019, "CTRL",
// section 4.1, as transformers and llama.cpp have it). logits [B, V] float32, counts [B, V] int32,
// penalty float32, a scalar or [B].
func penalize(logits, counts, penalty *Node) *Node {
	p := along(penalty, logits.Shape().Dimensions...)
	less := Where(LessThan(logits, gx.ZerosLike(logits)), Mul(logits, p), Div(logits, p))
	return Where(gx.GreaterThanScalar(counts, 0), less, logits)
}
