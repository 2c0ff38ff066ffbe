package codes

import (
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Scores are products of queries q [B, K, Q, D] float32 with the coded keys of a layer: [N, B, K,
// Q, 32] float32.
func (f Format) Scores(q *Node, x Blocks, o Sums) *Node {
	s := f.scoring(q, x)
	scale, zero := f.Spec.ScaleAndZero(x.Scales, x.Zeros)
	if f.PerChannel {
		return s.perChannel(scale, zero, x.Tokens, o)
	}
	return s.perToken(scale, zero, o)
}

// scoring is queries under way to their scores. Parts of a head count as heads: H = K·parts.
type scoring struct {
	Format
	layout         WordLayout
	queries, codes *Node
	n, b, k, rows  int // blocks, rows, key/value heads, queries of each
	heads          int // H
}

func (f Format) scoring(q *Node, x Blocks) scoring {
	layout := WordLayout{Parts: 1, Rows: f.HeadDim}
	if f.Packed {
		layout = f.Words()
	}
	d := dims(q)
	return scoring{f, layout, q, x.Codes, dims(x.Codes)[0], d[0], d[1], d[2], d[1] * layout.Parts}
}

// perChannel: scales belong to channels and go into the query:
//
//	q·(scale·code + zero) = (q·scale)·code + q·zero
//
// scale and zero [token groups, B, K, D]; tokens are stored scales of tokens, [N, B, K, 1, 32], or
// nil: they multiply the score.
func (s scoring) perChannel(scale, zero, tokens *Node, o Sums) *Node {
	full := []int{dims(scale)[0], s.b, s.k, s.rows, s.HeadDim}
	weights := gx.BroadcastToDims(Reshape(s.queries, 1, s.b, s.k, s.rows, s.HeadDim), full...)
	weights = Mul(weights, gx.BroadcastToDims(Reshape(scale, full[0], s.b, s.k, 1, s.HeadDim), full...))
	sums := s.sums(perBlock(weights, s.n), 1, o)
	sum := o.parts(o.Keep(sums[0]), s.layout.Parts)
	zeros := DotGeneral(s.queries, []int{3}, []int{0, 1}, zero, []int{3}, []int{1, 2})
	zeros = perBlock(TransposeAllAxes(zeros, 3, 0, 1, 2), s.n) // [N, B, K, Q]
	out := []int{s.n, s.b, s.k, s.rows, BlockTokens}
	scores := Add(sum, gx.BroadcastToDims(Reshape(zeros, s.n, s.b, s.k, s.rows, 1), out...))
	if tokens != nil {
		scores = Mul(scores, gx.BroadcastToDims(numbers.DecodeTokenScales(tokens), out...))
	}
	return scores
}

// perToken: scales belong to tokens and multiply the sum over each group of channels. scale and
// zero [N, B, K, D/G, 32]; zero may be nil.
func (s scoring) perToken(scale, zero *Node, o Sums) *Node {
	groups := max(1, s.Groups()/s.layout.Parts) // of a part
	queries := Reshape(s.queries, 1, s.b, s.k, s.rows, s.HeadDim)
	sums := s.sums(queries, groups, o)
	out := []int{s.n, s.b, s.heads, s.rows, BlockTokens}
	lanes := func(x *Node, g int) *Node { return gx.BroadcastToDims(SliceAxis(x, 3, AxisElem(g)), out...) }
	scale = s.ofPart(scale, groups)
	var total *Node // sums of the query over each group
	if zero != nil {
		zero = s.ofPart(zero, groups)
		total = gx.ReduceSum(Reshape(s.parts(queries), s.b, s.heads, s.rows, groups, s.layout.Rows/groups), 4)
	}
	for g := range sums {
		sums[g] = Mul(sums[g], lanes(scale, g))
		if zero != nil {
			column := Reshape(SliceAxis(total, 3, AxisElem(g)), 1, s.b, s.heads, s.rows, 1)
			sums[g] = Add(sums[g], Mul(lanes(zero, g), gx.BroadcastToDims(column, out...)))
		}
	}
	return o.parts(o.Keep(gx.SumInPairs(sums)), s.layout.Parts)
}

// sums are products of weights [m, B, K, Q, D], m = 1 or N, with the codes alone, one for each of
// the groups of a part: [N, B, H, Q, 32].
func (s scoring) sums(weights *Node, groups int, o Sums) []*Node {
	weights = s.parts(weights)
	m, rows := dims(weights)[0], s.layout.Rows
	sums := make([]*Node, groups)
	for _, p := range s.planesOf(s.codes, 3, func(words *Node) *Node { return words }) {
		full := []int{s.n, s.b, s.heads, s.rows, p.count, BlockTokens}
		w := Mul(weights, gx.BroadcastToDims(Reshape(p.factors, 1, 1, 1, 1, rows), m, s.b, s.heads, s.rows, rows))
		w = Reshape(w, m, s.b, s.heads, s.rows, p.count, rows/p.count)
		words := sumFields(p.fields, func(i int, field *Node) (*Node, *Node) {
			return ExpandAndBroadcast(field, full, []int{3}), gx.BroadcastToDims(SliceAxis(w, 5, AxisElem(i)), full...)
		})
		for g := range sums {
			part := o.SumAxis(words, 4, g*p.count/groups, (g+1)*p.count/groups)
			if sums[g] != nil {
				part = Add(sums[g], part)
			}
			sums[g] = part
		}
	}
	return sums
}

// parts splits heads into their parts: [m, B, K, Q, D] -> [m, B, H, Q, D/parts], with zeros for the
// padding of the codes.
func (s scoring) parts(x *Node) *Node {
	m, l := dims(x)[0], s.layout
	x = padAxis(x, 4, l.Padded()-s.HeadDim)
	x = Reshape(x, m, s.b, s.k, s.rows, l.Parts, l.Rows)
	return Reshape(TransposeAllAxes(x, 0, 1, 2, 4, 3, 5), m, s.b, s.heads, s.rows, l.Rows)
}

// ofPart gives parts the scales of their groups: [N, B, K, D/G, 32] -> [N, B, H, groups, 32].
func (s scoring) ofPart(x *Node, groups int) *Node {
	if own := s.Groups(); own < s.layout.Parts {
		x = Reshape(x, s.n, s.b, s.k, own, 1, BlockTokens)
		x = gx.BroadcastToDims(x, s.n, s.b, s.k, own, s.layout.Parts/own, BlockTokens)
	}
	return Reshape(x, s.n, s.b, s.heads, groups, BlockTokens)
}

// parts adds the parts of a head: [N, B, K·parts, Q, 32] -> [N, B, K, Q, 32].
func (o Sums) parts(x *Node, parts int) *Node {
	if parts == 1 {
		return x
	}
	d := dims(x)
	return o.SumAxis(Reshape(x, d[0], d[1], d[2]/parts, parts, d[3], d[4]), 3, 0, parts)
}
