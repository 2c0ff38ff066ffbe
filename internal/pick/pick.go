// Package pick chooses tokens inside a graph, as transformers does: greedily, or at random with
// temperature, top_k, top_p and min_p, after a penalty for repetitions. It knows no model and no
// cache.
package pick

import (
	"math"
	"slices"

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
	MinP       bool
	Endings    int // length of Inputs.EOS, at least 1

	// Penalty is the size of the vocabulary where tokens of the text so far are made less likely,
	// else 0. Window is how many of the newest tokens count; 0: all.
	Penalty, Window int
	// PerRow gives each row settings of its own, apart from EOS: vectors of [B]. A temperature of 0
	// then is a greedy row.
	PerRow bool
}

// Inputs are the settings as graph inputs: vectors of one element where nothing else is said, or of
// one a row (Kind.PerRow), so that the body of a decode loop can take them in (see gx.Inside).
type Inputs struct {
	EOS       *Node // [Endings] int32: tokens that end a row, -1 where unused
	MinNew    *Node // int32: no row ends before it has so many new tokens
	Generated *Node // int32: new tokens before the first pick of this call

	// For sampling alone.
	Temperature *Node // float32, above 0
	TopK        *Node // int32, 1 to V
	TopP        *Node // float32 in (0, 1]
	MinP        *Node // float32 in (0, 1]
	Shares      *Node // [N, B] float32 in (0, 1]: the random numbers, one per pick and row

	// For the penalty alone.
	Penalty *Node   // float32, above 0
	History History // before the first pick of this call
}

// Shapes lists the inputs: for n picks of b rows.
func (k Kind) Shapes(n, b int) []shapes.Shape {
	settings := 1
	if k.PerRow {
		settings = b
	}
	i32, f32 := shapes.Make(dtypes.Int32, settings), shapes.Make(dtypes.Float32, settings)
	list := []shapes.Shape{shapes.Make(dtypes.Int32, k.Endings), i32, i32}
	if k.Sample {
		list = append(list, f32, i32, f32, shapes.Make(dtypes.Float32, n, b))
	}
	if k.MinP {
		list = append(list, f32)
	}
	if k.Penalty > 0 {
		list = append(append(list, f32), k.historyShapes(b)...)
	}
	return list
}

// Inputs names the nodes that Shapes lists.
func (k Kind) Inputs(in []*Node) Inputs {
	p := Inputs{EOS: in[0], MinNew: in[1], Generated: in[2]}
	in = in[3:]
	if k.Sample {
		p.Temperature, p.TopK, p.TopP, p.Shares = in[0], in[1], in[2], in[3]
		in = in[4:]
	}
	if k.MinP {
		p.MinP, in = in[0], in[1:]
	}
	if k.Penalty > 0 {
		p.Penalty, p.History = in[0], k.history(in[1:])
	}
	return p
}

// Pick chooses the next token of each row: logits [B, V] float32, step (int32 scalar) counts the
// picks of this call -> [B] int32. As in transformers, the penalty comes first, an ending below the
// wanted length gets a logit of -inf, then follow temperature, top_k, top_p and min_p, in this
// order. Greedy picks take the lowest of equal best tokens, as torch does.
func (k Kind) Pick(logits, step *Node, in Inputs) *Node {
	b := logits.Shape().Dim(0)
	if k.Penalty > 0 {
		logits = penalize(logits, in.History.Counts, k.setting(in.Penalty))
	}
	logits = k.withoutEndings(logits, step, in)
	if !k.Sample {
		return gx.ArgMax(logits, -1)
	}
	temperature := k.setting(in.Temperature)
	if k.PerRow {
		temperature = Where(k.greedy(in), gx.OnesLike(temperature), temperature)
		temperature = along(temperature, logits.Shape().Dimensions...)
	}
	scores := Div(logits, temperature)
	if k.TopK {
		scores = topK(scores, k.setting(in.TopK))
	}
	if k.TopP {
		scores = topP(scores, k.setting(in.TopP))
	}
	if k.MinP {
		scores = minP(scores, k.setting(in.MinP))
	}
	drawn := draw(scores, in.share(step, b))
	if k.PerRow {
		drawn = Where(k.greedy(in), gx.ArgMax(logits, -1), drawn)
	}
	return drawn
}

// greedy tells which rows take the most likely token, [B] bool.
func (k Kind) greedy(in Inputs) *Node {
	t := k.setting(in.Temperature)
	return LessOrEqual(t, gx.ZerosLike(t))
}

// share is the random number of each row in the pick of this step, [B] float32.
func (in Inputs) share(step *Node, b int) *Node {
	zero := gx.Scalar(step.Graph(), dtypes.Int32, 0)
	return Reshape(gx.DynamicSlice(in.Shares, []*Node{step, zero}, []int{1, b}), b)
}

// Random is share for a way of picking of one's own, and Index the new tokens before this pick, an
// int32 scalar; neither is for Kind.PerRow.
func (in Inputs) Random(step *Node) *Node { return in.share(step, in.Shares.Shape().Dim(1)) }
func (in Inputs) Index(step *Node) *Node  { return Add(scalarOf(in.Generated), step) }

// withoutEndings takes the end-of-sequence tokens away from rows that are still too short.
func (k Kind) withoutEndings(logits, step *Node, in Inputs) *Node {
	g, s := logits.Graph(), logits.Shape()
	ids := Iota(g, shapes.Make(dtypes.Int32, s.Dim(1)), 0)
	if k.PerRow {
		generated := k.setting(in.Generated)
		short := LessThan(Add(generated, gx.BroadcastToDims(step, s.Dim(0))), k.setting(in.MinNew))
		ending := gx.BroadcastToDims(Reshape(k.IsEnding(ids, in), 1, s.Dim(1)), s.Dimensions...)
		return Where(And(ending, along(short, s.Dimensions...)), gx.Fill(g, s, math.Inf(-1)), logits)
	}
	short := LessThan(in.Index(step), scalarOf(in.MinNew))
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
// -inf. scores [B, V] float32, k int32 from 1 to V, a scalar or [B].
func topK(scores, k *Node) *Node {
	g, s := scores.Graph(), scores.Shape()
	b, v := s.Dim(0), s.Dim(1)
	// Half a token less than k, so that rounding in the share cannot ask for k+1.
	share := gx.DivScalar(gx.SubScalar(ConvertDType(k, dtypes.Float32), 0.5), v)
	keys := order(scores)
	least := largestReaching(keys, gx.Ones(g, s), along(share, b), 32)
	return Where(GreaterOrEqual(keys, gx.BroadcastToDims(least, b, v)), scores, gx.Fill(g, s, math.Inf(-1)))
}

// topP keeps, from the best token down, those before which less than p of the probability is used
// up: the smallest set that holds p. Of equal tokens at its edge the higher ids are kept, as in
// transformers, whose sort leaves equal scores in order and removes from the low end. The others
// become -inf. scores [B, V] float32, p float32 in (0, 1], a scalar or [B].
func topP(scores, p *Node) *Node {
	g, s := scores.Graph(), scores.Shape()
	b, v := s.Dim(0), s.Dim(1)
	all := func(x *Node) *Node { return gx.BroadcastToDims(x, b, v) }
	zeros := gx.Zeros(g, s)

	keys, weights := order(scores), softmaxWeights(scores)
	edge := all(largestReaching(keys, weights, along(p, b), 32))
	above, at := GreaterThan(keys, edge), Equal(keys, edge)

	// Of the tokens at the edge, the set needs as many as bring it to p.
	whole := gx.ReduceSumAndKeep(weights, -1)
	used := gx.ReduceSumAndKeep(Where(above, weights, zeros), -1)
	each := gx.ReduceMaxAndKeep(Where(at, weights, zeros), -1)
	needed := gx.MaxScalar(Ceil(Div(Sub(Mul(whole, along(p, b, 1)), used), each)), 1)
	equals := Where(at, gx.Ones(g, s), zeros)
	ids, idBits := indexKeys(g, b, v)
	share := gx.MinScalar(Div(gx.SubScalar(needed, 0.5), gx.ReduceSumAndKeep(equals, -1)), 1)
	first := all(largestReaching(ids, equals, Reshape(share, b), idBits))

	keep := Or(above, And(at, GreaterOrEqual(ids, first)))
	return Where(keep, scores, gx.Fill(g, s, math.Inf(-1)))
}

// minP keeps the tokens that are at least p times as likely as the best one; the others become -inf
// (Nguyen et al. 2024, "Turning Up the Heat", arXiv 2407.01082). scores [B, V] float32, p float32
// in (0, 1], a scalar or [B].
func minP(scores, p *Node) *Node {
	s := scores.Shape()
	keep := GreaterOrEqual(softmaxWeights(scores), along(p, s.Dimensions...))
	return Where(keep, scores, gx.Fill(scores.Graph(), s, math.Inf(-1)))
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

// setting is scalarOf, or a setting of each row, [B].
func (k Kind) setting(x *Node) *Node {
	if k.PerRow {
		return gx.Inside(x)
	}
	return scalarOf(x)
}

// along spreads a setting over dims, the first of which is that of rows.
func along(x *Node, dims ...int) *Node {
	if !x.Shape().IsScalar() {
		first := slices.Repeat([]int{1}, len(dims))
		first[0] = x.Shape().Dim(0)
		x = Reshape(x, first...)
	}
	return gx.BroadcastToDims(x, dims...)
}
