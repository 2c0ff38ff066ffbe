package kvq

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/usererr"
)

// loop is what the graph of a generation depends on, and what it takes beside tokens.
type loop struct {
	chooser
	inputs []*tensors.Tensor // Generation.Inputs
	shapes []shapes.Shape    // of inputs
}

func (s *Session) newLoop(config Generation) (l loop, err error) {
	return newLoop(config, s.plan.shape.Batch)
}

func newLoop(config Generation, rows int) (l loop, err error) {
	if err := config.validate(); err != nil {
		return l, err
	}
	l.chooser = chooser{config.picker(rows).Kind, config.Pick}
	for i, x := range config.Inputs {
		t, err := tensors.FromAnyValue(x)
		if err != nil {
			return l, usererr.New("kvq.Generation.Inputs[%d]: %w", i, err)
		}
		l.inputs, l.shapes = append(l.inputs, t), append(l.shapes, t.Shape())
	}
	return l, nil
}

// loopKey names a decode graph.
type loopKey struct {
	step stepKey
	chooser
}

// String is what the graph is for.
func (k loopKey) String() string {
	return fmt.Sprintf("the decode loop for %d rows of %d slots", k.step.batch, k.step.capacity)
}

// startLoop begins to compile the decode loop: the cache, limit [1], token [B], done [B] and pad
// [1], what picking takes, and the further inputs of the model's step. It gives the cache, the new
// tokens [N, B], whether logits were numbers [B], which rows have ended [B] and the number of steps
// [1]. Where rows have lengths of their own, those that have ended rest, and the loop ends when one
// more has. It ends where a window is full, too: see running.flush.
func (r *runner) startLoop(plan *Plan, l loop) program {
	i32 := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Int32, dims...) }
	state, b := plan.stateShapes, plan.shape.Batch
	token := i32(b, 1)
	picking := l.kind.Shapes(generate.MaxBlock, b)
	inputs := slices.Concat(state, []shapes.Shape{i32(1), i32(b), shapes.Make(dtypes.Bool, b), i32(1)}, picking, l.shapes)
	key := loopKey{newStepKey(plan, false, append([]shapes.Shape{token}, l.shapes...)), l.chooser}
	apart := r.apart(plan)
	steps := apart.Plan.(*Plan)
	return r.start(key, inputs, len(state), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		n := len(state)
		used := usedVariables(r.backend, scope, false, slices.Concat(state, []shapes.Shape{token}, l.shapes), func(scope *model.Scope, in []*graph.Node) {
			r.stepGraph(scope, steps.From(in[:n]), in[n:])
		})
		limit, token, done, pad := in[n], in[n+1], in[n+2], in[n+3]
		settings := l.kind.Inputs(in[n+4:])
		extra := in[n+4+len(picking):]
		var inner *model.Scope    // of the loop's body
		var carried []*graph.Node // extra, inside of it
		loop := generate.Loop{
			Most: generate.MaxBlock, MarkEnded: true, FirstEnd: plan.shape.OwnLengths, Room: apart.Room,
			FeedRows: func(token, done *graph.Node, state []*graph.Node) (*graph.Node, []*graph.Node) {
				cache := steps.From(state)
				if plan.shape.OwnLengths {
					cache.NewTokens(graph.LogicalNot(done))
				}
				out := r.stepGraph(inner, cache, append([]*graph.Node{graph.Reshape(token, b, 1)}, carried...))
				return lastLogits(out[n:], b), out[:n]
			},
			Next: func(logits, step, done *graph.Node) (token, ended *graph.Node) {
				token, ends := l.choose(logits, step, settings)
				return generate.Continue(token, done, pad, func(*graph.Node) *graph.Node { return ends })
			},
			While: func(initial []*graph.Node, cond func([]*graph.Node) *graph.Node, body func([]*graph.Node) []*graph.Node) []*graph.Node {
				size := len(initial)
				out := loopWith(used, scope, append(slices.Clone(initial), extra...),
					func(st []*graph.Node) *graph.Node { return cond(st[:size]) },
					func(scope *model.Scope, st []*graph.Node) []*graph.Node {
						inner, carried = scope, st[size:]
						return append(body(st[:size]), st[size:]...)
					})
				return out[:size]
			},
		}
		made := loop.Build(limit, token, done, in[:n])
		return append(slices.Clone(made.State), made.Tokens, made.Sound, made.Done, made.Steps)
	})
}

// lastLogits are the logits [B, V] (float32) of the last token among a step's outputs.
func lastLogits(outputs []*graph.Node, b int) *graph.Node {
	if len(outputs) == 0 {
		exceptions.Panicf("kvq.Session.Generate: the model's step has no outputs, want logits [%d, t, V] first", b)
	}
	x := outputs[0]
	if x.Rank() < 2 || x.Rank() > 3 || x.Shape().Dim(0) != b || !x.DType().IsFloat() {
		exceptions.Panicf("kvq.Session.Generate: first output %s, want logits [%d, t, V] or [%d, V]", x.Shape(), b, b)
	}
	if x.Rank() == 3 {
		last := graph.Slice(x, graph.AxisRange(), graph.AxisElem(-1), graph.AxisRange())
		x = graph.Reshape(last, b, x.Shape().Dim(2))
	}
	if x.DType() != dtypes.Float32 {
		x = graph.ConvertDType(x, dtypes.Float32)
	}
	return x
}

// pickKey names the graph that picks the first token.
type pickKey struct {
	logits string
	chooser
}

// String is what the graph is for.
func (pickKey) String() string { return "the first pick" }

// startPick begins to compile it: logits, as the model's step returns them, and what picking takes,
// to tokens [B], whether the logits were numbers [B], and which rows end with the token [B].
func (r *runner) startPick(logits shapes.Shape, b int, c chooser) program {
	return r.start(pickKey{logits.String(), c}, append([]shapes.Shape{logits}, c.kind.Shapes(1, b)...), 0, func(_ *model.Scope, in []*graph.Node) []*graph.Node {
		x := lastLogits(in[:1], b)
		token, ends := c.choose(x, gx.Scalar(x.Graph(), dtypes.Int32, 0), c.kind.Inputs(in[1:]))
		return []*graph.Node{token, pick.AreNumbers(x), ends}
	})
}
