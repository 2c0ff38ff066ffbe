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

// Step is a model as a [Session] runs it: inputs to outputs, with the keys and values of the tokens
// before in cache. inputs[0] is [B, t, ...] for the t new tokens of a step, such as ids [B, t]
// (int32); all else is the model's business. Each layer appends and attends, and at the end comes
// cache.Advance. For [Session.Generate], inputs[0] are ids, and outputs[0] are logits, [B, t, V] or
// those of the last token, [B, V].
//
// A model made of GoMLX's layers takes its variables from scope, the root of the session's store. A
// plain graph function leaves scope alone.
type Step func(scope *model.Scope, cache Cache, inputs []*graph.Node) []*graph.Node

// Session is a batch under way: a model with a cache on the device, which grows when it is full.
// Every call of a method gets its graph compiled once for each shape, and the cache is updated in
// place: the device holds it once.
//
// Methods that change the cache are not to be called at the same time; sessions made by Fork are
// apart in this. The zero value is not usable.
type Session struct {
	runner *runner
	plan   *Plan
	state  *held // in the order of plan.Shapes; nil where the cache is empty
	slots  int   // of each row that are filled, padding included

	outputs *held       // of the step before; nil where the cache has changed since
	newest  []int32     // tokens that Generate has made and no step has read; nil: none
	reader  *generation // whose loop can read them
	ended   bool        // Finalize was called
}

// NewSession makes a session with an empty cache. plan is how it begins, with room for
// plan.Shape().Capacity tokens in each of plan.Shape().Batch rows. store has the variables of a
// model made of GoMLX's layers; those without values are initialized. nil stands for a store
// without variables. Nothing is compiled yet.
//
// The caller ends it with [Session.Finalize]; backend and store stay.
func NewSession(backend compute.Backend, store *model.Store, plan *Plan, step Step) (*Session, error) {
	if plan.shape.OwnLengths {
		return nil, usererr.New("kvq.NewSession: a session's rows grow together, and the plan's have lengths of their own: want NewBatch")
	}
	r, err := newRunner(backend, store, step)
	if err != nil {
		return nil, err
	}
	return &Session{runner: r, plan: plan}, nil
}

// Length is how many tokens each row holds, padding included. It counts the tokens that Generate
// returned.
func (s *Session) Length() int {
	if s.newest != nil {
		return s.slots + 1
	}
	return s.slots
}

// Plan is the layout of the cache as it is now: its capacity grows.
func (s *Session) Plan() *Plan { return s.plan }

// Memory is what the cache takes on the device now; zero where it is empty.
func (s *Session) Memory() (Memory, error) {
	if s.state == nil {
		return Memory{}, nil
	}
	return Measure(s.plan, s.state.list)
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
	if err := s.makeRoom(ctx, in.tokens); err != nil {
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
	s.forget()
	s.state.free()
	s.state, s.slots = nil, 0
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
	case s.slots > 0 && s.state == nil:
		return usererr.New("kvq.Session.%s: a call before failed, and the cache with it: Reset and begin anew", method)
	}
	return nil
}

// take keeps what a step returned: the state, then the outputs.
func (s *Session) take(out []*tensors.Tensor, tokens int) []*tensors.Tensor {
	s.forget()
	n := len(s.plan.arrays())
	s.state.free() // of a cache that was cropped to nothing
	s.state, s.slots = hold(out[:n:n]), s.slots+tokens
	s.outputs = hold(out[n:])
	return slices.Clone(out[n:])
}

// forget drops what follows from the cache as it was.
func (s *Session) forget() {
	s.outputs.free()
	s.outputs, s.newest, s.reader = nil, nil, nil
}

// update calls a program that writes a new cache in the place of the old one. The session has none
// until the caller takes the new one; the call is short and not given up.
func (s *Session) update(ctx context.Context, p program, more ...any) ([]*tensors.Tensor, error) {
	old := s.state
	out, err := s.runner.run(ctx, p, true, func() ([]any, error) {
		s.state = nil
		args, err := old.donate(s.runner.backend)
		return append(args, more...), err
	})
	if s.state == nil {
		old.free()
	}
	return out, err
}

// edit replaces the cache by another of as many arrays.
func (s *Session) edit(ctx context.Context, plan *Plan, p program, more ...any) error {
	out, err := s.update(ctx, p, more...)
	if err != nil {
		return err
	}
	s.state, s.plan = hold(out), plan
	return nil
}

// makeRoom grows the cache until so many tokens more fit.
func (s *Session) makeRoom(ctx context.Context, tokens int) error {
	plan, err := s.plan.withRoom(s.slots + tokens)
	if err != nil || plan == s.plan {
		return err
	}
	return s.edit(ctx, plan, s.runner.startGrow(s.plan, plan))
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

// sessionInputs are the inputs of a step.
type sessionInputs struct {
	tensors []*tensors.Tensor
	own     []*tensors.Tensor // made here
	shapes  []shapes.Shape
	tokens  int // t
}

// checkStart refuses padding that prompts of so many rows and tokens cannot have.
func checkStart(method string, start []int32, rows, tokens int) error {
	if len(start) != rows {
		return usererr.New("%s: padding of %d rows, want that of %d", method, len(start), rows)
	}
	for row, n := range start {
		if n < 0 || int(n) > tokens {
			return usererr.New("%s: padding of %d tokens in row %d, want 0 to the %d of the prompt", method, n, row, tokens)
		}
	}
	return nil
}

// newStepInputs checks the inputs of a step of b rows as far as they can be known: the first is
// [B, t, ...].
func newStepInputs(method string, b int, inputs []any) (*sessionInputs, error) {
	in := &sessionInputs{}
	for i, x := range inputs {
		t, err := tensors.FromAnyValue(x)
		if err != nil {
			in.free()
			return nil, usererr.New("%s: input %d: %w", method, i, err)
		}
		if _, given := x.(*tensors.Tensor); !given {
			in.own = append(in.own, t)
		}
		in.tensors, in.shapes = append(in.tensors, t), append(in.shapes, t.Shape())
	}
	if len(in.shapes) == 0 || in.shapes[0].Rank() < 2 || in.shapes[0].Dim(0) != b || in.shapes[0].Dim(1) < 1 {
		first := "none"
		if len(in.shapes) > 0 {
			first = in.shapes[0].String()
		}
		in.free()
		return nil, usererr.New("%s: first input %s, want [%d, t, ...] for the new tokens of %d rows", method, first, b, b)
	}
	in.tokens = in.shapes[0].Dim(1)
	return in, nil
}

func (in *sessionInputs) free() { finalize(in.own) }

func (in *sessionInputs) args() []any {
	args := make([]any, len(in.tensors))
	for i, t := range in.tensors {
		args[i] = t
	}
	return args
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
	state := plan.Shapes()
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
	return r.start(key, from.Shapes(), 0, func(_ *model.Scope, nodes []*graph.Node) []*graph.Node { return from.Grow(to, nodes) })
}
