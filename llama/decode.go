package llama

import (
	"context"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

// maxBlock is the most tokens of one call of the decode loop, and the size of its buffers. How many
// a call really makes is an input, so that one compilation serves all.
const maxBlock = 128

// logitsBlock is the same for loops that keep logits, whose buffers are V times as large.
const logitsBlock = 16

// decodeKey names a decode graph.
type decodeKey struct {
	batch, capacity int
	pick            pickKind
	forced          bool // tokens are given, not picked
	keepLogits      bool
}

// block is how many tokens a call can make.
func (k decodeKey) block() int {
	if k.keepLogits {
		return logitsBlock
	}
	return maxBlock
}

// decodeInputs are what a decode graph takes besides weights and cache; their shapes are in
// decodeShapes, in this order.
type decodeInputs struct {
	// int32 [1]: tokens to make; int32 [B]: each row's newest token; bool [B]: row has ended
	limit, token, done *Node
	pad                *Node // int32 [1]
	forced             *Node // int32 [N, B], only if forced
	pick               pickInputs
}

// shapes lists the inputs of a decode graph after weights and cache.
func (k decodeKey) shapes() []shapes.Shape {
	i32 := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Int32, dims...) }
	list := []shapes.Shape{i32(1), i32(k.batch), shapes.Make(dtypes.Bool, k.batch), i32(1)}
	if k.forced {
		return append(list, i32(k.block(), k.batch))
	}
	return append(list, k.pick.shapes(k.block(), k.batch)...)
}

// shapes lists the inputs that picking takes: for n picks of b rows.
func (k pickKind) shapes(n, b int) []shapes.Shape {
	list := []shapes.Shape{shapes.Make(dtypes.Int32, k.endings), shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Int32, 1)}
	if k.sample {
		list = append(list, shapes.Make(dtypes.Float32, 1), shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Float32, 1),
			shapes.Make(dtypes.Float32, n, b))
	}
	return list
}

// inputs names the nodes that shapes lists.
func (k pickKind) inputs(in []*Node) pickInputs {
	p := pickInputs{eos: in[0], minNew: in[1], generated: in[2]}
	if k.sample {
		p.temperature, p.topK, p.topP, p.shares = in[3], in[4], in[5], in[6]
	}
	return p
}

func (k decodeKey) inputs(in []*Node) decodeInputs {
	d := decodeInputs{limit: in[0], token: in[1], done: in[2], pad: in[3]}
	if k.forced {
		d.forced = in[4]
	} else {
		d.pick = k.pick.inputs(in[4:])
	}
	return d
}

// startDecode begins to compile the decode loop for a cache.
func (g *Generator) startDecode(plan *kvq.Plan, key decodeKey) *program {
	key.batch, key.capacity = plan.Shape().Batch, plan.Shape().Capacity
	state := layouts(plan)
	return g.programs.start(key, append(state, wholes(key.shapes()...)...), plan.HeadAxes(),
		func(w modelNodes, in []*Node) []*Node {
			gx.Reuse(in[:len(state)])
			return g.decode(w, plan, key, in[:len(state)], key.inputs(in[len(state):]))
		})
}

// decode is the loop: each iteration feeds every row's newest token through the model and picks the
// next one, with the cache as state that XLA updates in place. It ends after limit iterations, or
// when all rows have ended.
//
// It returns the cache, the new tokens [N, B] (int32), the number of iterations (int32 [1]),
// whether each row's logits were numbers all along [B] (bool), and with keepLogits the logits
// [N, B, V] (float32) that the tokens were picked from.
func (g *Generator) decode(w modelNodes, plan *kvq.Plan, key decodeKey, state []*Node, in decodeInputs) []*Node {
	graph, n, b := in.token.Graph(), key.block(), key.batch
	zero := func() *Node { return gx.Scalar(graph, dtypes.Int32, 0) }
	const step, limit, token, done, sound, tokens, cache = 0, 1, 2, 3, 4, 5, 6 // places in the loop's state
	initial := []*Node{zero(), Reshape(in.limit), in.token, in.done,
		gx.Ones(graph, shapes.Make(dtypes.Bool, b)), gx.Zeros(graph, shapes.Make(dtypes.Int32, n, b))}
	initial = append(initial, state...)
	if key.keepLogits {
		initial = append(initial, gx.Zeros(graph, shapes.Make(dtypes.Float32, n, b, g.model.config.VocabSize)))
	}
	out := gx.Loop(initial,
		func(st []*Node) *Node {
			return And(LessThan(st[step], st[limit]), Not(gx.LogicalAll(st[done])))
		},
		func(st []*Node) []*Node {
			c := plan.From(st[cache : cache+len(state)])
			logits := w.lastLogits(g.model.hidden(w, Reshape(st[token], b, 1), c, nil))
			next, ended := key.next(logits, st[step], st[done], in)
			row := DynamicUpdateSlice(st[tokens], Reshape(next, 1, b), []*Node{st[step], zero()})
			after := append([]*Node{gx.AddScalar(st[step], 1), st[limit], next, ended, And(st[sound], areNumbers(logits)), row}, c.Nodes()...)
			if key.keepLogits {
				kept := st[len(st)-1]
				after = append(after, DynamicUpdateSlice(kept, ExpandLeftToRank(logits, 3), []*Node{st[step], zero(), zero()}))
			}
			return after
		})
	results := append([]*Node{}, out[cache:cache+len(state)]...)
	results = append(results, out[tokens], Reshape(out[step], 1), out[sound])
	return append(results, out[cache+len(state):]...)
}

// next is each row's next token [B] (int32) and whether the row has ended with it [B] (bool). Rows
// that had ended before go on with padding.
func (k decodeKey) next(logits, step, done *Node, in decodeInputs) (token, ended *Node) {
	b := logits.Shape().Dim(0)
	if k.forced {
		zero := gx.Scalar(logits.Graph(), dtypes.Int32, 0)
		return Reshape(DynamicSlice(in.forced, []*Node{step, zero}, []int{1, b}), b), done
	}
	token = k.pick.pick(logits, step, in.pick)
	token = Where(done, gx.BroadcastToDims(scalarOf(in.pad), b), token)
	return token, Or(done, k.pick.isEnding(token, in.pick))
}

// pickKey names the graph that picks the first token from the prompt's logits.
type pickKey struct {
	batch int
	pick  pickKind
}

// startPick begins to compile it: logits [B, V] and the inputs of picking to tokens [B] and whether
// the logits were numbers [B].
func (g *Generator) startPick(batch int, kind pickKind) *program {
	in := append([]shapes.Shape{shapes.Make(dtypes.Float32, batch, g.model.config.VocabSize)}, kind.shapes(1, batch)...)
	return g.programs.start(pickKey{batch, kind}, wholes(in...), nil, func(_ modelNodes, in []*Node) []*Node {
		return []*Node{kind.pick(in[0], gx.Scalar(in[0].Graph(), dtypes.Int32, 0), kind.inputs(in[1:])), areNumbers(in[0])}
	})
}

// decoded is what one call of the decode loop made.
type decoded struct {
	steps  int
	tokens []tokenizer.Token // [N, B], the first steps rows
	sound  []bool            // [B]: the logits were numbers
	logits sharded           // [N, B, V] on the device, or nothing; the caller frees it
}

// decode runs the loop once.
func (s *session) decode(ctx context.Context, key decodeKey, inputs ...any) (*decoded, error) {
	program := s.g.startDecode(s.plan, key)
	if err := s.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return nil, err
	}
	// A call is short; it is not abandoned, so that its tokens are not lost.
	out, err := s.g.programs.run(context.WithoutCancel(ctx), program, s.donate(inputs...)...)
	if err != nil {
		return nil, err
	}
	out = s.replace(out)
	b := &decoded{}
	if key.keepLogits {
		b.logits = out[3]
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
