package llama

import (
	"context"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/pick"
	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// decodeKey names a decode graph.
type decodeKey struct {
	batch, capacity int
	pick            pick.Kind
	forced          bool // tokens are given, not picked
	keepLogits      bool
	own             bool // rows have lengths of their own
}

func (k decodeKey) String() string {
	return fmt.Sprintf("new tokens, a cache of %d tokens, %s", k.capacity, rowsText(k.batch))
}

// block is how many tokens a call can make.
func (k decodeKey) block() int {
	if k.keepLogits {
		return generate.LogitsBlock
	}
	return generate.MaxBlock
}

// decodeInputs are what a decode graph takes besides weights and cache; their shapes are in
// decodeShapes, in this order.
type decodeInputs struct {
	// int32 [1]: tokens to make; int32 [B]: each row's newest token; bool [B]: row has ended
	limit, token, done *Node
	pad                *Node // int32 [1]
	forced             *Node // int32 [N, B], only if forced
	pick               pick.Inputs
}

// shapes lists the inputs of a decode graph after weights and cache.
func (k decodeKey) shapes() []shapes.Shape {
	i32 := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Int32, dims...) }
	list := []shapes.Shape{i32(1), i32(k.batch), shapes.Make(dtypes.Bool, k.batch), i32(1)}
	if k.forced {
		return append(list, i32(k.block(), k.batch))
	}
	return append(list, k.pick.Shapes(k.block(), k.batch)...)
}

func (k decodeKey) inputs(in []*Node) decodeInputs {
	d := decodeInputs{limit: in[0], token: in[1], done: in[2], pad: in[3]}
	if k.forced {
		d.forced = in[4]
	} else {
		d.pick = k.pick.Inputs(in[4:])
	}
	return d
}

// startDecode begins to compile the decode loop for a cache.
func (g *Generator) startDecode(plan *kvq.Plan, key decodeKey) program {
	key.batch, key.capacity, key.own = plan.Shape().Batch, plan.Shape().Capacity, plan.Shape().OwnLengths
	state := g.model.on.layouts(plan)
	return g.programs.start(key, append(state, wholes(key.shapes()...)...), plan.HeadAxes(),
		func(w modelNodes, in []*Node) []*Node {
			gx.Reuse(in[:len(state)])
			return g.decode(w, plan, key, in[:len(state)], key.inputs(in[len(state):]))
		})
}

// startLoop begins to compile the decode loop for a cache, and what flushes its windows.
func (g *Generator) startLoop(plan *kvq.Plan, key decodeKey) []program {
	list := []program{g.startDecode(plan, key)}
	if g.apart(plan).Full > 0 {
		list = append(list, g.startFlush(plan))
	}
	return list
}

// decode is the loop, generate.Loop, over this model and cache. It ends where a window is full:
// the host makes room. It returns the cache, the new tokens [N, B] (int32), the number of
// iterations (int32 [1]), whether each row's logits were numbers all along [B] (bool), and with
// keepLogits the logits [N, B, V] (float32) that the tokens were picked from.
func (g *Generator) decode(w modelNodes, plan *kvq.Plan, key decodeKey, state []*Node, in decodeInputs) []*Node {
	apart := g.apart(plan)
	steps := apart.Plan.(*kvq.Plan)
	loop := generate.Loop{
		Most: key.block(),
		Room: apart.Room,
		Feed: func(token *Node, state []*Node) (*Node, []*Node) {
			c := steps.From(state)
			return w.lastLogits(g.model.hidden(w, Reshape(token, key.batch, 1), c, nil)), c.Nodes()
		},
		Next: func(logits, step, done *Node) (token, ended *Node) { return key.next(logits, step, done, in) },
	}
	if key.own { // rows that have ended rest, and the loop comes back when one more has
		loop.FirstEnd = true
		loop.FeedRows = func(token, done *Node, state []*Node) (*Node, []*Node) {
			c := steps.From(state)
			c.NewTokens(LogicalNot(done))
			return w.lastLogits(g.model.hidden(w, Reshape(token, key.batch, 1), c, nil)), c.Nodes()
		}
	}
	if loop.History = in.pick.History.Nodes(); loop.History != nil {
		loop.NextWith = func(logits, step, done *Node, history []*Node) (token, ended *Node, after []*Node) {
			in := in
			in.pick = key.pick.WithHistory(in.pick, history)
			token, ended = key.next(logits, step, done, in)
			return token, ended, in.pick.History.After(token, step).Nodes()
		}
	}
	if key.keepLogits {
		loop.Keep = g.model.config.VocabSize
	}
	made := loop.Build(in.limit, in.token, in.done, state)
	results := append(append([]*Node{}, made.State...), made.Tokens, made.Steps, made.Sound)
	if key.keepLogits {
		results = append(results, made.Logits)
	}
	return results
}

// next is each row's next token [B] (int32) and whether the row has ended with it [B] (bool). Rows
// that had ended before go on with padding.
func (k decodeKey) next(logits, step, done *Node, in decodeInputs) (token, ended *Node) {
	if k.forced {
		b := logits.Shape().Dim(0)
		zero := gx.Scalar(logits.Graph(), dtypes.Int32, 0)
		return Reshape(gx.DynamicSlice(in.forced, []*Node{step, zero}, []int{1, b}), b), done
	}
	return generate.Continue(k.pick.Pick(logits, step, in.pick), done, in.pad,
		func(token *Node) *Node { return k.pick.IsEnding(token, in.pick) })
}

// pickKey names the graph that picks the first token from the prompt's logits.
type pickKey struct {
	batch int
	pick  pick.Kind
}

func (k pickKey) String() string { return "picking a token, " + rowsText(k.batch) }

// startPick begins to compile it: logits [B, V] and the inputs of picking to tokens [B] and whether
// the logits were numbers [B].
func (g *Generator) startPick(batch int, kind pick.Kind) program {
	in := append([]shapes.Shape{shapes.Make(dtypes.Float32, batch, g.model.config.VocabSize)}, kind.Shapes(1, batch)...)
	return g.programs.startPlain(pickKey{batch, kind}, wholes(in...), nil, func(in []*Node) []*Node {
		return []*Node{kind.Pick(in[0], gx.Scalar(in[0].Graph(), dtypes.Int32, 0), kind.Inputs(in[1:])), pick.AreNumbers(in[0])}
	})
}

// decoded is what one call of the decode loop made.
type decoded struct {
	steps  int
	tokens []tokenizer.Token // [N, B], the first steps rows
	sound  []bool            // [B]: the logits were numbers
	logits sharded           // [N, B, V] on the device, or nothing; the caller frees it
}

// decode makes at most n tokens of each row: fewer where all rows have ended, where one more has of
// those with lengths of their own, or where a window is full. wanted is how many tokens follow
// altogether, done are the rows that have ended, pad fills them, and inputs are those of the graph
// behind these.
func (s *session) decode(ctx context.Context, key decodeKey, n, wanted int, newest []tokenizer.Token, done []bool, pad tokenizer.Token, inputs ...any) (b *decoded, err error) {
	program := s.g.startDecode(s.plan, key)
	if err := s.makeRoom(ctx, wanted, done); err != nil { // what it compiles is compiled beside
		return nil, err
	}
	if err := s.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return nil, err
	}
	stage.Tell(ctx, stage.Stage{Kind: stage.Tokens, Rows: s.batch()})
	// A call is short; it is not abandoned, so that its tokens are not lost.
	in := s.donate(append([]any{[]int32{int32(n)}, newest, done, []tokenizer.Token{pad}}, inputs...)...)
	out, err := s.g.programs.run(context.WithoutCancel(ctx), program, in...)
	if err != nil {
		return nil, err
	}
	out = s.replace(out)
	b = &decoded{}
	if key.keepLogits {
		b.logits = out[3]
		defer func() {
			if err != nil {
				free(out[3])
			}
		}()
	}
	defer free(out[:3]...)
	if b.tokens, err = read[int32](out[0]); err != nil {
		return nil, err
	}
	steps, err := read[int32](out[1])
	if err != nil {
		return nil, err
	}
	if b.sound, err = read[bool](out[2]); err != nil {
		return nil, err
	}
	b.steps = int(steps[0])
	s.used += b.steps
	return b, nil
}
