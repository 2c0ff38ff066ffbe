package evaluate

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/gx"
)

// kind says what is made of predictions besides the likelihood of the text.
type kind int

const (
	scoreAlone     kind = iota // nothing
	scoreReference             // they are kept, to compare others with
	scoreTested                // they are compared with kept ones
)

// block is how many tokens one call of the scoring loop feeds: it bounds the kept predictions, [N,
// B, V] float32.
const block = engine.ScoreBlock

// scores of one step, all [B]: see Scores. kl and top1 are nil without a reference.
type stepScores struct {
	nll, kl, top1 *Node
	prediction    *Node // log-probabilities [B, V]
}

// score compares logits [B, V] with the token that follows, target [B] int32, and with the
// reference's log-probabilities [B, V], if not nil.
//
// The divergence is summed as Σ p·(d + e⁻ᵈ - 1) with d = log p - log q, which is Σ p·d because p
// and q sum to 1. Its terms are never negative and flat around d = 0, so that the rounding of d
// does not drown a small divergence.
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

// list has the scores of a kind, [B], and, for a reference, [B, V].
func (s stepScores) list(k kind) []*Node {
	switch k {
	case scoreTested:
		return []*Node{s.nll, s.kl, s.top1}
	case scoreReference:
		return []*Node{s.nll, s.prediction}
	}
	return []*Node{s.nll}
}

// nodes is list as buffers of one step: [1, B] and [1, B, V].
func (s stepScores) nodes(k kind) []*Node {
	list := s.list(k)
	for i, x := range list {
		list[i] = ExpandLeftToRank(x, x.Rank()+1)
	}
	return list
}

// shapes lists the buffers of scores for n steps.
func (k kind) shapes(n, b, v int) []shapes.Shape {
	list := []shapes.Shape{shapes.Make(dtypes.Float32, n, b)}
	switch k {
	case scoreTested:
		list = append(list, shapes.Make(dtypes.Float32, n, b), shapes.Make(dtypes.Bool, n, b))
	case scoreReference:
		list = append(list, shapes.Make(dtypes.Float32, n, b, v))
	}
	return list
}

// promptKey names the graph that scores the first token, from the prompt's logits.
type promptKey struct{ kind kind }

func (promptKey) String() string { return "scoring a prompt" }

// startPrompt begins to compile it: logits [B, V], target [1, B] and perhaps the reference [1, B,
// V] to scores.
func startPrompt(s engine.Session, k kind, v int) engine.Program {
	b := s.Plan().Shape().Batch
	in := []shapes.Shape{shapes.Make(dtypes.Float32, b, v), shapes.Make(dtypes.Int32, 1, b)}
	if k == scoreTested {
		in = append(in, shapes.Make(dtypes.Float32, 1, b, v))
	}
	return s.Program(promptKey{k}, in, func(in []*Node) []*Node {
		var other *Node
		if k == scoreTested {
			other = Reshape(in[2], b, v)
		}
		return score(in[0], Reshape(in[1], b), other).nodes(k)
	})
}

// loopKey names the graph that feeds given tokens through the cache and scores those that follow.
type loopKey struct{ kind kind }

func (loopKey) String() string { return "scoring token by token" }

// startLoop begins to compile it: limit [1], tokens to feed and tokens that follow [N, B], all
// int32, and perhaps the reference [N, B, V], to the cache and the scores.
func startLoop(s engine.Session, k kind, v int) engine.Program {
	b := s.Plan().Shape().Batch
	in := []shapes.Shape{shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Int32, block, b), shapes.Make(dtypes.Int32, block, b)}
	if k == scoreTested {
		in = append(in, shapes.Make(dtypes.Float32, block, b, v))
	}
	return s.Loop(loopKey{k}, in, func(m engine.Model) []*Node { return loop(m, k, b, v) })
}

func loop(m engine.Model, k kind, b, v int) []*Node {
	in, graph, arrays := m.Inputs, m.Inputs[0].Graph(), len(m.State)
	const step, limit, cache = 0, 1, 2 // places in the loop's state
	initial := append([]*Node{gx.Scalar(graph, dtypes.Int32, 0), Reshape(in[0])}, m.State...)
	for _, shape := range k.shapes(block, b, v) {
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
				return Reshape(gx.DynamicSlice(x, start, append([]int{1}, dims...)), dims...)
			}
			c := m.Plan.From(st[cache : cache+arrays])
			logits := m.Logits(Reshape(slice(in[1], b), b, 1), c)
			var other *Node
			if k == scoreTested {
				other = slice(in[3], b, v)
			}
			after := append([]*Node{gx.AddScalar(st[step], 1), st[limit]}, c.Nodes()...)
			for i, x := range score(logits, slice(in[2], b), other).nodes(k) {
				start := []*Node{st[step]}
				for range x.Rank() - 1 {
					start = append(start, zero)
				}
				after = append(after, DynamicUpdateSlice(st[cache+arrays+i], x, start))
			}
			return after
		})
	return out[cache:]
}
