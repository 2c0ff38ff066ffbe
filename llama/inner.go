package llama

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/tokenizer"
)

func init() {
	engine.NewSession = func(generator any, prompts [][]tokenizer.Token, more int) (engine.Session, error) {
		return newInnerSession(generator.(*Generator), prompts, more)
	}
	engine.NewSketch = func(backend compute.Backend, config Config, dtype dtypes.DType, devices int, packed bool, cache kvq.Config) (engine.Sketch, error) {
		m, err := newModel(backend, config, dtype, devices)
		if err != nil {
			return nil, err
		}
		m.packed = packed
		g, err := newGenerator(m, cache, m.dtype) // it reads no calibration
		return innerSketch{g}, err
	}
	engine.NewRandom = func(backend compute.Backend, config Config, dtype dtypes.DType, devices int, seed int64) (any, error) {
		return newRandom(backend, config, seed, LoadOptions{DType: dtype, Devices: devices})
	}
	engine.NewDecodeTimer = func(ctx context.Context, generator any, batch, contextTokens, steps int, own bool) (engine.DecodeTimer, error) {
		return generator.(*Generator).newDecodeTimer(ctx, batch, contextTokens, steps, own)
	}
	engine.Generate = func(ctx context.Context, generator any, batch tokenizer.Batch, config any, seen func(*kvq.Plan, []*tensors.Tensor) error) (any, error) {
		r, err := generator.(*Generator).newRun(batch, config.(GenerateConfig))
		if err != nil {
			return (*Result)(nil), err
		}
		r.seen = func(s *session) error {
			var state []*tensors.Tensor
			for _, x := range s.state {
				state = append(state, x.parts[0])
			}
			return seen(s.plan, state)
		}
		r.blocks(ctx, func(_ Block, e error) bool { err = e; return true })
		return r.result, err
	}
	engine.WeightBytes = func(config Config, dtype dtypes.DType, packed bool) (sum int64) {
		for _, l := range weightLayouts(config, dtype, 1, packed) {
			sum += int64(l.shape.ByteSize())
		}
		return sum
	}
}

// innerSketch is a generator whose model has no weights.
type innerSketch struct{ *Generator }

func (s innerSketch) Prompt(plan *kvq.Plan, columns int) engine.Program {
	return s.startPrompt(plan, columns)
}

func (s innerSketch) Step(plan *kvq.Plan) engine.Program {
	pick := GenerateConfig{}.picker(s.model.config, plan.Shape().Batch)
	return stepPrograms(s.startLoop(plan, decodeKey{pick: pick.Kind}))
}

// stepPrograms are the decode loop and what is called between its calls.
type stepPrograms []program

func (p stepPrograms) Wait(ctx context.Context) error { return waitAll(ctx, p) }

// Needs is what the loop needs; the most in between is that of any of them.
func (p stepPrograms) Needs() (gx.Compiled, error) {
	sum, err := p[0].Needs()
	for _, other := range p[1:] {
		needs, otherErr := other.Needs()
		if otherErr != nil {
			err = otherErr
		}
		sum.Temporary = max(sum.Temporary, needs.Temporary)
		sum.Code += needs.Code
	}
	return sum, err
}

// innerSession is a session as package engine shows it to other packages of this module.
type innerSession struct {
	*session
	prompt *prompt
	clock  Timing
}

func newInnerSession(g *Generator, prompts [][]tokenizer.Token, more int) (*innerSession, error) {
	p, err := newPrompt(tokenizer.Batch{IDs: prompts}, g.model.config)
	if err != nil {
		return nil, err
	}
	s := &innerSession{prompt: p.resize(generate.PromptColumns(p.length))}
	plan, err := g.plan(len(prompts), generate.FirstCapacity(s.prompt.length, more))
	if err != nil {
		return nil, err
	}
	s.session = &session{g: g, plan: plan, clock: &s.clock}
	return s, nil
}

// innerKey names a graph of another package.
type innerKey struct {
	key             any
	batch, capacity int // capacity is 0 for a graph without a cache
}

func (k innerKey) String() string { return fmt.Sprintf("%v, %s", k.key, rowsText(k.batch)) }

func (s *innerSession) Program(key any, inputs []shapes.Shape, build func([]*graph.Node) []*graph.Node) engine.Program {
	return s.g.programs.start(innerKey{key: key, batch: s.batch()}, wholes(inputs...), nil,
		func(_ modelNodes, in []*graph.Node) []*graph.Node { return build(in) })
}

func (s *innerSession) Loop(key any, inputs []shapes.Shape, build func(engine.Model) []*graph.Node) engine.Program {
	plan, state := s.plan, s.g.model.on.layouts(s.plan)
	return s.g.programs.start(innerKey{key, s.batch(), s.capacity()}, append(state, wholes(inputs...)...), plan.HeadAxes(),
		func(w modelNodes, in []*graph.Node) []*graph.Node {
			gx.Reuse(in[:len(state)])
			return build(engine.Model{
				Plan: plan, State: in[:len(state)], Inputs: in[len(state):],
				Logits: func(ids *graph.Node, cache kvq.Cache) *graph.Node {
					return w.lastLogits(s.g.model.hidden(w, ids, cache, nil))
				},
			})
		})
}

func (s *innerSession) Prefill(ctx context.Context) (engine.Array, error) {
	filled, logits, err := s.g.prefill(ctx, s.plan, s.prompt, &s.clock)
	if err != nil {
		return nil, err
	}
	s.session = filled
	return logits, nil
}

func (s *innerSession) Run(ctx context.Context, p engine.Program, inputs ...any) ([]engine.Array, error) {
	if err := s.clock.compiling(func() error { return p.Wait(ctx) }); err != nil {
		return nil, err
	}
	out, err := s.g.programs.run(context.WithoutCancel(ctx), p.(program), inputs...)
	return asArrays(out), err
}

func (s *innerSession) Step(ctx context.Context, p engine.Program, tokens int, inputs ...any) ([]engine.Array, error) {
	if err := s.clock.compiling(func() error { return p.Wait(ctx) }); err != nil {
		return nil, err
	}
	var out []sharded
	err := clocked(&s.clock.Decode, func() (err error) {
		stage.Tell(ctx, stage.Stage{Kind: stage.Tokens, Rows: s.batch()})
		out, err = s.g.programs.run(context.WithoutCancel(ctx), p.(program), s.donate(inputs...)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.used += tokens
	s.clock.Steps += tokens
	return asArrays(s.replace(out)), nil
}

func (s *innerSession) Plan() *kvq.Plan { return s.plan }

func (s *innerSession) Room() int { return s.room() }

func (s *innerSession) Grow(ctx context.Context, capacity int) error { return s.grow(ctx, capacity) }

func (s *innerSession) Memory() (kvq.Memory, error) {
	each, err := s.memory()
	return together(each), err
}

func (s *innerSession) Clock() engine.Clock { return engine.Clock(s.clock) }

func (s *innerSession) Free() { s.free() }

func asArrays(list []sharded) []engine.Array {
	out := make([]engine.Array, len(list))
	for i, x := range list {
		out[i] = x
	}
	return out
}

// Float32, Bool and Free make a sharded tensor an engine.Array.
func (s sharded) Float32() ([]float32, error) { return read[float32](s) }
func (s sharded) Bool() ([]bool, error)       { return read[bool](s) }
func (s sharded) Free()                       { free(s) }
