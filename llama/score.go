package llama

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
)

// scoreKind says what is made of predictions besides the likelihood of the text.
type scoreKind int

const (
	scoreAlone     scoreKind = iota // nothing
	scoreReference                  // they are kept, to compare others with
	scoreTested                     // they are compared with kept ones
)

// scoreBlock is how many tokens one call of the scoring loop feeds: it bounds the kept predictions, [N, B, V] float32.
const scoreBlock = 32

// scores of one step, all [B]: see Scores. kl and top1 are nil without a reference.
type stepScores struct {
	nll, kl, top1 *Node
	prediction    *Node // log-probabilities [B, V]
}

// score compares logits [B, V] with the token that follows, target [B] int32, and with the reference's log-probabilities
// [B, V], if not nil.
//
// The divergence is summed as Σ p·(d + e⁻ᵈ - 1) with d = log p - log q, which is Σ p·d because p and q sum to 1. Its
// terms are never negative and flat around d = 0, so that the rounding of d does not drown a small divergence.
func score(logits, target, reference *Node) stepScores {
	g, s := logits.Graph(), logits.Shape()
	b, v := s.Dim(0), s.Dim(1)
	shifted := Sub(logits, gx.ReduceMaxAndKeep(logits, -1))
	prediction := Sub(shifted, Log(gx.ReduceSumAndKeep(Exp(shifted), -1)))
	out := stepScores{prediction: prediction}

	chosen := Equal(Iota(g, shapes.Make(dtypes.Int32, b, v), 1), gx.BroadcastToDims(Reshape(target, b, 1), b, v))
	out.nll = Neg(gx.ReduceSum(Where(chosen, prediction, gx.Zeros(g, s)), -1))
	if reference != nil {
		d := Sub(reference, prediction)
		out.kl = gx.ReduceSum(Mul(Exp(reference), Add(d, Expm1(Neg(d)))), -1)
		out.top1 = Equal(gx.ArgMax(reference, -1), gx.ArgMax(prediction, -1))
	}
	return out
}

// nodes lists the scores that a kind has, as buffers [1, B] and, for a reference, [1, B, V].
func (s stepScores) nodes(kind scoreKind) []*Node {
	list := []*Node{ExpandLeftToRank(s.nll, 2)}
	switch kind {
	case scoreTested:
		list = append(list, ExpandLeftToRank(s.kl, 2), ExpandLeftToRank(s.top1, 2))
	case scoreReference:
		list = append(list, ExpandLeftToRank(s.prediction, 3))
	}
	return list
}

// shapes lists the buffers of scores for n steps.
func (k scoreKind) shapes(n, b, v int) []shapes.Shape {
	list := []shapes.Shape{shapes.Make(dtypes.Float32, n, b)}
	switch k {
	case scoreTested:
		list = append(list, shapes.Make(dtypes.Float32, n, b), shapes.Make(dtypes.Bool, n, b))
	case scoreReference:
		list = append(list, shapes.Make(dtypes.Float32, n, b, v))
	}
	return list
}

// scorePromptKey names the graph that scores the first token, from the prompt's logits.
type scorePromptKey struct {
	batch int
	kind  scoreKind
}

// startScorePrompt begins to compile it: logits [B, V], target [1, B] and perhaps the reference [1, B, V] to scores.
func (g *Generator) startScorePrompt(batch int, kind scoreKind) *program {
	v := g.model.config.VocabSize
	in := []shapes.Shape{shapes.Make(dtypes.Float32, batch, v), shapes.Make(dtypes.Int32, 1, batch)}
	if kind == scoreTested {
		in = append(in, shapes.Make(dtypes.Float32, 1, batch, v))
	}
	return g.programs.start(scorePromptKey{batch, kind}, wholes(in...), nil, func(_ modelNodes, in []*Node) []*Node {
		var reference *Node
		if kind == scoreTested {
			reference = Reshape(in[2], batch, v)
		}
		return score(in[0], Reshape(in[1], batch), reference).nodes(kind)
	})
}

// scoreKey names the graph that feeds given tokens through the cache and scores those that follow.
type scoreKey struct {
	batch, capacity int
	kind            scoreKind
}

// startScore begins to compile it: the cache, then limit [1], tokens to feed and tokens that follow [N, B], all int32,
// and perhaps the reference [N, B, V], to the cache and the scores.
func (g *Generator) startScore(plan *kvq.Plan, kind scoreKind) *program {
	s, v, state := plan.Shape(), g.model.config.VocabSize, layouts(plan)
	in := []shapes.Shape{shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Int32, scoreBlock, s.Batch), shapes.Make(dtypes.Int32, scoreBlock, s.Batch)}
	if kind == scoreTested {
		in = append(in, shapes.Make(dtypes.Float32, scoreBlock, s.Batch, v))
	}
	all := append(state, wholes(in...)...)
	return g.programs.start(scoreKey{s.Batch, s.Capacity, kind}, all, plan.HeadAxes(), func(w modelNodes, in []*Node) []*Node {
		gx.Reuse(in[:len(state)])
		return g.scoreLoop(w, plan, kind, in[:len(state)], in[len(state):])
	})
}

func (g *Generator) scoreLoop(w modelNodes, plan *kvq.Plan, kind scoreKind, state, in []*Node) []*Node {
	graph, b, v := in[0].Graph(), plan.Shape().Batch, g.model.config.VocabSize
	const step, limit, cache = 0, 1, 2 // places in the loop's state
	initial := append([]*Node{gx.Scalar(graph, dtypes.Int32, 0), Reshape(in[0])}, state...)
	for _, shape := range kind.shapes(scoreBlock, b, v) {
		initial = append(initial, gx.Zeros(graph, shape))
	}
	out := gx.Loop(initial,
		func(st []*Node) *Node { return LessThan(st[step], st[limit]) },
		func(st []*Node) []*Node {
			zero := gx.Scalar(graph, dtypes.Int32, 0)
			// slice takes one step out of an input [N, ...].
			slice := func(x *Node, dims ...int) *Node {
				start := []*Node{st[step]}
				for range dims {
					start = append(start, zero)
				}
				return Reshape(DynamicSlice(x, start, append([]int{1}, dims...)), dims...)
			}
			c := plan.From(st[cache : cache+len(state)])
			logits := w.lastLogits(g.model.hidden(w, Reshape(slice(in[1], b), b, 1), c, nil))
			var reference *Node
			if kind == scoreTested {
				reference = slice(in[3], b, v)
			}
			after := append([]*Node{gx.AddScalar(st[step], 1), st[limit]}, c.Nodes()...)
			for i, x := range score(logits, slice(in[2], b), reference).nodes(kind) {
				start := []*Node{st[step]}
				for range x.Rank() - 1 {
					start = append(start, zero)
				}
				after = append(after, DynamicUpdateSlice(st[cache+len(state)+i], x, start))
			}
			return after
		})
	return out[cache:]
}
