package kvq

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/support/exceptions"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// Step is a model as a [Session] or a [Batch] runs it: inputs to outputs, with the keys and values
// of the tokens before in cache. inputs[0] is [B, t, ...] for the t new tokens of a step, such as
// ids [B, t] (int32); all else is the model's business. Each layer appends and attends, and at the
// end comes cache.Advance. For Generate, inputs[0] are ids, and outputs[0] are logits, [B, t, V] or
// those of the last token, [B, V].
//
// It is called when a graph is built, for other B (forks, prompts of a batch) and other t: it takes
// both from its inputs. It panics where it cannot be built, as graph functions do; the method that
// needed the graph returns that as an error.
//
// A model made of GoMLX's layers takes its variables from scope, the root of the session's store. A
// plain graph function leaves scope alone.
type Step func(scope *model.Scope, cache Cache, inputs []*graph.Node) []*graph.Node

// Session is a batch under way: a model with a cache on the device, which grows when it is full.
// Every call of a method gets its graph compiled once for each shape, and the cache is updated in
// place: the device holds it once.
//
// Methods that change the cache are not to be called at the same time, which is refused where it is
// seen; sessions made by Fork are apart in this. The zero value is not usable.
type Session struct {
	running
	slots int // of each row that are filled, padding included

	outputs *held       // of the step before; nil where the cache has changed since
	newest  []int32     // tokens that Generate has made and no step has read; nil: none
	reader  *generation // whose loop can read them
}

// NewSession makes a session of the model step with an empty cache. plan is how it begins, with
// room for plan.Shape().Capacity tokens in each of plan.Shape().Batch rows, which all grow together
// ([NewBatch] is for others). store has the variables of a model made of GoMLX's layers; those
// without values are initialized when a graph first needs them. nil stands for a store without
// variables. Nothing is compiled yet.
//
// The error is that of [Supported], or one of the plan's rows. The caller ends the session with
// [Session.Finalize]; backend and store stay.
func NewSession(backend compute.Backend, store *model.Store, plan *Plan, step Step) (*Session, error) {
	if plan == nil || plan.shape.Layers == 0 {
		return nil, usererr.New("kvq.NewSession: want a plan of New, got none")
	}
	if plan.shape.OwnLengths {
		return nil, usererr.New("kvq.NewSession: a session's rows grow together, and the plan's have lengths of their own: want NewBatch")
	}
	r, err := newRunner(backend, store, step)
	if err != nil {
		return nil, err
	}
	return &Session{running: newRunning(r, plan)}, nil
}

// Length is how many tokens each row holds, padding included. It counts the tokens that Generate
// returned.
func (s *Session) Length() int {
	if s.newest != nil {
		return s.slots + 1
	}
	return s.slots
}

// Prefill takes the prompts into an empty cache in one call. inputs are those of the model: Go
// values or tensors, inputs[0] is [B, T, ...] for prompts of T tokens. The outputs belong to the
// session and live until its next call. When ctx ends, the cache stays empty; a call whose inputs
// are tensors is finished first.
//
// Each T is compiled once: [PadLeft] brings prompts to one of a few lengths.
func (s *Session) Prefill(ctx context.Context, inputs ...any) ([]*tensors.Tensor, error) {
	return s.PrefillPadded(ctx, make([]int32, s.plan.shape.Batch), inputs...)
}

// PrefillPadded is Prefill for prompts that begin with padding, of which the row's start [B] says
// how many tokens: they are never seen.
func (s *Session) PrefillPadded(ctx context.Context, start []int32, inputs ...any) ([]*tensors.Tensor, error) {
	if err := s.usable("Prefill"); err != nil {
		return nil, err
	}
	if n := s.Length(); n > 0 {
		return nil, usererr.New("kvq.Session.Prefill: the cache holds %d tokens, want none: Step adds more, Reset begins anew", n)
	}
	in, err := newStepInputs("kvq.Session.Prefill", s.plan.shape.Batch, inputs)
	if err != nil {
		return nil, err
	}
	defer in.free()
	if err := checkStart("kvq.Session.Prefill", start, s.plan.shape.Batch, in.tokens); err != nil {
		return nil, err
	}
	plan := s.plan
	if plan, err = plan.withRoom(in.tokens); err != nil {
		return nil, err
	}
	p := s.runner.startPrefill(plan, in.shapes)
	// A call that was given up still reads its inputs: the caller's own may be gone by then.
	whole := len(in.own) < len(in.tensors)
	out, err := s.runner.run(ctx, p, whole, func() ([]any, error) { return append(in.args(), start), nil })
	if err != nil {
		return nil, err
	}
	in.free()
	s.plan = plan
	return s.take(out, in.tokens), nil
}

// Step adds tokens to every row: one, or several at once (a chunk of a prompt, drafts to be
// verified). inputs and outputs are as for Prefill, and each number of tokens is compiled once. In
// an empty cache it is Prefill.
func (s *Session) Step(ctx context.Context, inputs ...any) ([]*tensors.Tensor, error) {
	if err := s.usable("Step"); err != nil {
		return nil, err
	}
	if s.Length() == 0 {
		return s.Prefill(ctx, inputs...)
	}
	in, err := newStepInputs("kvq.Session.Step", s.plan.shape.Batch, inputs)
	if err != nil {
		return nil, err
	}
	defer in.free()
	if err := s.readNewest(ctx); err != nil {
		return nil, err
	}
	if err := s.grow(ctx, s.slots+in.tokens); err != nil {
		return nil, err
	}
	out, err := s.update(ctx, s.runner.startStep(s.plan, in.shapes), in.args()...)
	if err != nil {
		return nil, err
	}
	return s.take(out, in.tokens), nil
}

// Reset forgets all tokens. What was compiled stays.
func (s *Session) Reset() {
	s.changed()
	s.forget()
	s.slots = 0
}

// Finalize frees what the session holds on the device; with the last of a session and its forks,
// the compiled graphs too. It waits for calls that were given up.
func (s *Session) Finalize() {
	if s.ended {
		return
	}
	s.Reset()
	s.ended = true
	s.runner.release()
}

// usable refuses a session without a cache that should have one.
func (s *Session) usable(method string) error {
	switch {
	case s.ended:
		return usererr.New("kvq.Session.%s: the session is finalized", method)
	case s.lost:
		return usererr.New("kvq.Session.%s: a call before failed, and the cache with it: Reset and begin anew", method)
	}
	return nil
}

// take keeps what a step returned: the cache, then the outputs.
func (s *Session) take(out []*tensors.Tensor, tokens int) []*tensors.Tensor {
	s.changed()
	outputs := s.hold(out)
	s.slots += tokens
	s.outputs = hold(outputs)
	return slices.Clone(outputs)
}

// changed drops what follows from the cache as it was.
func (s *Session) changed() {
	s.outputs.free()
	s.outputs, s.newest, s.reader = nil, nil, nil
}

// withRoom is the plan, or one of twice its capacity, and so on, in which so many tokens fit.
func (p *Plan) withRoom(tokens int) (*Plan, error) {
	if tokens <= p.shape.Capacity {
		return p, nil
	}
	capacity := p.shape.Capacity
	for capacity < tokens {
		capacity *= 2
	}
	return p.WithCapacity(capacity)
}

// stepKey names the graph of a step.
type stepKey struct {
	batch, capacity int
	form            Form
	prompt          bool
	inputs          string
}

// String is what the graph is for.
func (k stepKey) String() string {
	what := "a step"
	if k.prompt {
		what = "the prompt"
	}
	return fmt.Sprintf("%s of %s for %d rows of %d slots", what, k.inputs, k.batch, k.capacity)
}

func newStepKey(plan *Plan, prompt bool, inputs []shapes.Shape) stepKey {
	var all strings.Builder
	for _, s := range inputs {
		fmt.Fprint(&all, s, ";")
	}
	return stepKey{plan.shape.Batch, plan.shape.Capacity, plan.form, prompt, all.String()}
}

// startPrefill begins to compile a prompt's graph: inputs and start [B] to the cache and the
// outputs.
func (r *runner) startPrefill(plan *Plan, inputs []shapes.Shape) program {
	all := append(slices.Clone(inputs), shapes.Make(dtypes.Int32, plan.shape.Batch))
	return r.start(newStepKey(plan, true, inputs), all, 0, func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		n := len(inputs)
		return r.stepGraph(scope, plan.Init(in[n]), in[:n])
	})
}

// startStep begins to compile the graph of a step: the cache and inputs to the cache and the
// outputs.
func (r *runner) startStep(plan *Plan, inputs []shapes.Shape) program {
	state := plan.stateShapes
	return r.start(newStepKey(plan, false, inputs), append(state, inputs...), len(state), func(scope *model.Scope, in []*graph.Node) []*graph.Node {
		return r.stepGraph(scope, plan.From(in[:len(state)]), in[len(state):])
	})
}

// stepGraph is the model's step and what has to hold of it.
func (r *runner) stepGraph(scope *model.Scope, cache Cache, inputs []*graph.Node) []*graph.Node {
	outputs := r.step(scope, cache, inputs)
	state := cache.Nodes()
	if t := inputs[0].Shape().Dim(1); advanced(cache) != t {
		exceptions.Panicf("kvq.Session: the model's step advanced the cache by %d tokens, its first input has %d: %s", advanced(cache), t, inputs[0].Shape())
	}
	return append(state, outputs...)
}

// startGrow begins to compile the graph that moves a cache into a larger one.
func (r *runner) startGrow(from, to *Plan) program {
	key := editKey{"growing", from.shape.Batch, from.shape.Capacity, to.shape.Capacity}
	return r.start(key, from.stateShapes, 0, func(_ *model.Scope, nodes []*graph.Node) []*graph.Node { return from.Grow(to, nodes) })
}
