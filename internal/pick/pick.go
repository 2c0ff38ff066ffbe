// Package pick chooses tokens inside a graph, as transformers does: greedily, or at random with
// temperature, top_k and top_p. It knows no model and no cache.
package pick

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
)

// Kind says how tokens are picked, as far as the graph depends on it. The settings themselves are
// inputs, so that changing them compiles nothing anew.
type Kind struct {
	Sample     bool // else greedy
	TopK, TopP bool // filters that sampling needs
	Endings    int  // length of Inputs.EOS, at least 1
}

// Inputs are the settings as graph inputs: vectors of one element where nothing else is said, so
// that the body of a decode loop can take them in (see gx.Inside).
type Inputs struct {
	EOS       *Node // [Endings] int32: tokens that end a row, -1 where unused
	MinNew    *Node // int32: no row ends before it has so many new tokens
	Generated *Node // int32: new tokens before the first pick of this call

	// For sampling alone.
	Temperature *Node // float32, above 0
	TopK        *Node // int32, 1 to V
	TopP        *Node // float32 in (0, 1]
	Shares      *Node // [N, B] float32 in (0, 1]: the random numbers, one per pick and row
}

// Shapes lists the inputs: for n picks of b rows.
func (k Kind) Shapes(n, b int) []shapes.Shape {
	list := []shapes.Shape{shapes.Make(dtypes.Int32, k.Endings), shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Int32, 1)}
	if k.Sample {
		list = append(list, shapes.Make(dtypes.Float32, 1), shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Float32, 1),
			shapes.Make(dtypes.Float32, n, b))
	}
	return list
}

// Inputs names the nodes that Shapes lists.
func (k Kind) Inputs(in []*Node) Inputs {
	p := Inputs{EOS: in[0], MinNew: in[1], Generated: in[2]}
	if k.Sample {
		p.Temperature, p.TopK, p.TopP, p.Shares = in[3], in[4], in[5], in[6]
	}
	return p
}

// Pick chooses the next token of each row: logits [B, V] float32, step (int32 scalar) counts the
// picks of this call -> [B] int32. As in transformers, an ending below the wanted length gets a
// logit of -inf, then follow temperature, top_k and top_p, in this order. Greedy picks take the
// lowest of equal best tokens, as torch does.
func (k Kind) Pick(logits, step *Node, in Inputs) *Node {
	b := logits.Shape().Dim(0)
	logits = k.withoutEndings(logits, step, in)
	if !k.Sample {
		return gx.ArgMax(logits, -1)
	}
	scores := Div(logits, scalarOf(in.Temperature))
	if k.TopK {
		scores = topK(scores, scalarOf(in.TopK))
	}
	if k.TopP {
		scores = topP(scores, scalarOf(in.TopP))
	}
	return draw(scores, in.share(step, b))
}

// share is the random number of each row in the pick of this step, [B] float32.
func (in Inputs) share(step *Node, b int) *Node {
	zero := gx.Scalar(step.Graph(), dtypes.Int32, 0)
	return Reshape(gx.DynamicSlice(in.Shares, []*Node{step, zero}, []int{1, b}), b)
}

// Random is share for a way of picking of one's own, and Index the new tokens before this pick, an
// int32 scalar.
func (in Inputs) Random(step *Node) *Node { return in.share(step, in.Shares.Shape().Dim(1)) }
func (in Inputs) Index(step *Node) *Node  { return Add(scalarOf(in.Generated), step) }

// withoutEndings takes the end-of-sequence tokens away from rows that are still too short.
func (k Kind) withoutEndings(logits, step *Node, in Inputs) *Node {
	g, s := logits.Graph(), logits.Shape()
	short := LessThan(in.Index(step), scalarOf(in.MinNew))
	ids := Iota(g, shapes.Make(dtypes.Int32, s.Dim(1)), 0)
	banned := And(k.IsEnding(ids, in), gx.BroadcastToDims(short, s.Dim(1)))
	return Where(gx.BroadcastToDims(Reshape(banned, 1, s.Dim(1)), s.Dimensions...), gx.Fill(g, s, math.Inf(-1)), logits)
}

// AreNumbers tells which rows of logits [B, V] hold neither NaN nor +infinity: [B] bool.
func AreNumbers(logits *Node) *Node { return IsFinite(gx.ReduceMax(logits, -1)) }

// IsEnding tells which ids [n] (int32) end a row: [n] bool.
func (k Kind) IsEnding(ids *Node, in Inputs) *Node {
	n := ids.Shape().Dim(0)
	each := gx.BroadcastToDims(Reshape(ids, n, 1), n, k.Endings)
	return gx.LogicalAny(Equal(each, gx.BroadcastToDims(Reshape(gx.Inside(in.EOS), 1, k.Endings), n, k.Endings)), -1)
}

// topK keeps the k best scores of each row, and all that equal the last of them; the others become
// -inf. scores [B, V] float32, k int32 scalar from 1 to V.
func topK(scores, k *Node) *Node {
	g, s := scores.Graph(), scores.Shape()
	b, v := s.Dim(0), s.Dim(1)
	// Half a token less than k, so that rounding in the share cannot ask for k+1.
	share := gx.DivScalar(gx.SubScalar(ConvertDType(k, dtypes.Float32), 0.5), v)
	keys := order(scores)
	least := largestReaching(keys, gx.Ones(g, s), gx.BroadcastToDims(share, b), 32)
	return Where(GreaterOrEqual(keys, gx.BroadcastToDims(least, b, v)), scores, gx.Fill(g, s, math.Inf(-1)))
}

// topP keeps, from the best token down, those before which less than p of the probability is used
// up: the smallest set that holds p. Of equal tokens at its edge the higher ids are kept, as in
// transformers, whose sort leaves equal scores in order and removes from the low end. The others
// become -inf. scores [B, V] float32, p float32 scalar in (0, 1].
func topP(scores, p *Node) *Node {
	g, s := scores.Graph(), scores.Shape()
	b, v := s.Dim(0), s.Dim(1)
	all := func(x *Node) *Node { return gx.BroadcastToDims(x, b, v) }
	zeros := gx.Zeros(g, s)

	keys, weights := order(scores), softmaxWeights(scores)
	edge := all(largestReaching(keys, weights, gx.BroadcastToDims(p, b), 32))
	above, at := GreaterThan(keys, edge), Equal(keys, edge)

	// Of the tokens at the edge, the set needs as many as bring it to p.
	whole := gx.ReduceSumAndKeep(weights, -1)
	used := gx.ReduceSumAndKeep(Where(above, weights, zeros), -1)
	each := gx.ReduceMaxAndKeep(Where(at, weights, zeros), -1)
	needed := gx.MaxScalar(Ceil(Div(Sub(Mul(whole, gx.BroadcastToDims(p, b, 1)), used), each)), 1)
	equals := Where(at, gx.Ones(g, s), zeros)
	ids, idBits := indexKeys(g, b, v)
	share := gx.MinScalar(Div(gx.SubScalar(needed, 0.5), gx.ReduceSumAndKeep(equals, -1)), 1)
	first := all(largestReaching(ids, equals, Reshape(share, b), idBits))

	keep := Or(above, And(at, GreaterOrEqual(ids, first)))
	return Where(keep, scores, gx.Fill(g, s, math.Inf(-1)))
}

// draw picks token v with probability softmax(scores)[v]: share [B] float32, uniform in (0, 1], is
// the share of the probability that has to lie at or above the token's id. scores [B, V] -> [B]
// int32.
func draw(scores, share *Node) *Node {
	s := scores.Shape()
	ids, idBits := indexKeys(scores.Graph(), s.Dim(0), s.Dim(1))
	token := largestReaching(ids, softmaxWeights(scores), share, idBits)
	return ConvertDType(Reshape(token, s.Dim(0)), dtypes.Int32)
}

// softmaxWeights is softmax over the last axis before the division: e^(score - best).
func softmaxWeights(scores *Node) *Node {
	return Exp(Sub(scores, gx.ReduceMaxAndKeep(scores, -1)))
}

// scalarOf takes a setting, a vector of one element, into the function that is being built.
func scalarOf(setting *Node) *Node { return Reshape(gx.Inside(setting)) }
