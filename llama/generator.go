package llama

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/engine"
	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/hostmemory"
	"github.com/kvqbook/kvqbook/internal/stage"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// Generator generates text with one model and one configuration of the cache. What it compiles (a
// graph for each number of rows and each of a few sizes of prompt and cache) it keeps for later
// calls. Safe for concurrent use; calls at the same time share the device. The zero value is not
// usable.
type Generator struct {
	model    *Model
	cache    kvq.Config
	dtype    dtypes.DType // of keys and values in full precision
	programs *programs
	metrics  keyMetrics
	plans    sync.Map // what plan gave, by rows and slots
}

// NewGenerator checks the cache's configuration for the model; the zero kvq.Config is a
// full-precision cache. Several generators may share a model, to compare caches. Nothing is
// compiled yet. A cache with kvq.FeedbackCalibrated needs what [Model.Calibrate] measured: see
// [LoadOptions].Calibration.
func NewGenerator(model *Model, cache kvq.Config) (*Generator, error) {
	g, err := newGenerator(model, cache, model.dtype)
	if err != nil {
		return nil, err
	}
	if err := g.readCalibration(); err != nil {
		return nil, err
	}
	return g, nil
}

// newGenerator is NewGenerator with another dtype for the full-precision part of the cache than
// that of the weights.
func newGenerator(model *Model, cache kvq.Config, dtype dtypes.DType) (*Generator, error) {
	g := &Generator{model: model, cache: cache, dtype: dtype}
	g.programs = &programs{model: model}
	plan, err := g.planOf(g.shape(1, 128))
	if err != nil {
		return nil, err
	}
	g.cache = plan.Config()
	g.programs.all.Of = g.identity()
	return g, nil
}

// identity names what decides about the generator's graphs beside their shapes, for the same in
// another process.
func (g *Generator) identity() string {
	config, err := json.Marshal(g.model.config)
	if err != nil {
		return "" // a number that JSON has not: nothing is remembered of its graphs
	}
	on := g.model.on
	return fmt.Sprintf("%s %s %d devices, %s %s, packed %t, %s", on.backend.Name(), config, on.n, g.model.dtype, g.dtype, g.model.packed, g.cache)
}

// Model returns the model that generates.
func (g *Generator) Model() *Model { return g.model }

// CacheConfig returns the configuration of the cache, with the groups that fit the model's heads
// (see [kvq.New]).
func (g *Generator) CacheConfig() kvq.Config { return g.cache }

// Plan lays out the cache for so many rows and token slots a row, on all devices together.
func (g *Generator) Plan(batch, capacity int) (*kvq.Plan, error) {
	plan, err := g.plan(batch, capacity)
	if err != nil {
		return nil, err
	}
	return g.withHeads(plan, g.model.config.KVHeads)
}

// plan is Plan as the graphs see it: on several devices, the cache of one. It is made once: for
// many layers that takes half a millisecond.
func (g *Generator) plan(batch, capacity int) (*kvq.Plan, error) {
	key := [2]int{batch, capacity}
	if plan, ok := g.plans.Load(key); ok {
		return plan.(*kvq.Plan), nil
	}
	plan, err := g.planOf(g.shape(batch, capacity))
	if err == nil {
		g.plans.Store(key, plan)
	}
	return plan, err
}

// withHeads is a plan for another number of key/value heads.
func (g *Generator) withHeads(plan *kvq.Plan, heads int) (*kvq.Plan, error) {
	shape := plan.Shape()
	shape.KVHeads = heads
	return g.planOf(shape)
}

// shape is that of a cache for so many rows and token slots a row, as the graphs see it.
func (g *Generator) shape(batch, capacity int) kvq.Shape {
	c := g.model.own
	return kvq.Shape{
		Layers: c.Layers, Batch: batch, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
		Capacity: capacity, DType: g.dtype, SlidingWindow: c.SlidingWindow,
	}
}

func (g *Generator) planOf(shape kvq.Shape) (*kvq.Plan, error) {
	plan, err := kvq.New(g.cache, shape)
	if err != nil {
		return nil, usererr.New("cache: %w", err)
	}
	return plan, nil
}

// Finalize frees the compiled graphs, after it has waited for what is under way. The model stays.
func (g *Generator) Finalize() {
	g.programs.finalize()
	free(g.metrics.made...)
	g.metrics.made = nil
}

// session is a batch under way: its cache on the device, and how far it is filled.
type session struct {
	g     *Generator
	plan  *kvq.Plan // as the graphs see it, see Generator.plan
	used  int       // slots of each row, padding included
	state []sharded // in the order of plan.Shapes; owned

	// tokens in the fullest window that wait to be codes, see makeRoom; not known until counted
	waiting int
	counted bool

	clock *Timing // what waiting and running are added to
}

func (s *session) free() {
	free(s.state...)
	s.state = nil
}

func (s *session) batch() int    { return s.plan.Shape().Batch }
func (s *session) capacity() int { return s.plan.Shape().Capacity }

// room is how many more tokens fit into the cache.
func (s *session) room() int { return s.capacity() - s.used }

// inputs are the cache's tensors followed by others, as arguments of a program.
func (s *session) inputs(more ...any) []any {
	all := make([]any, 0, len(s.state)+len(more))
	for _, x := range s.state {
		all = append(all, x)
	}
	return append(all, more...)
}

// donate is inputs for a program that writes the new cache in the place of the old one (gx.Reuse):
// the cache is then held once instead of twice, and not copied. The session has none until replace
// gives it the new one.
func (s *session) donate(more ...any) []any {
	all := make([]any, 0, len(s.state)+len(more))
	for _, x := range s.state {
		all = append(all, donated(x))
	}
	s.state = nil
	return append(all, more...)
}

// replace exchanges the cache's tensors for those that a program returned first, and returns the
// other outputs.
func (s *session) replace(out []sharded) []sharded {
	n := len(s.plan.Shapes())
	free(s.state...)
	s.state, s.counted = append(s.state[:0], out[:n]...), false
	return out[n:]
}

// memory counts the bytes of the cache on each device.
func (s *session) memory() ([]kvq.Memory, error) {
	out := make([]kvq.Memory, s.g.model.on.n)
	for device := range out {
		var parts []*tensors.Tensor
		for _, x := range s.state {
			parts = append(parts, x.parts[device])
		}
		var err error
		if out[device], err = kvq.Measure(s.plan, parts); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// together is what all devices take.
func together(each []kvq.Memory) (sum kvq.Memory) {
	for _, m := range each {
		sum = sum.Plus(m)
	}
	return sum
}

// sumUp writes into a result what the cache takes now.
func (s *session) sumUp(r *Result) error {
	each, err := s.memory()
	r.DeviceCaches, r.Cache = each, together(each)
	r.FullCacheBytes, r.Slots = s.fullBytes(), s.capacity()
	return err
}

// coded counts the tokens of each row that are kept as codes. Every device has the arrays that
// tell.
func (s *session) coded() ([]int, error) {
	var parts []*tensors.Tensor
	for _, x := range s.state {
		parts = append(parts, x.parts[0])
	}
	return kvq.Coded(s.plan, parts)
}

// fullBytes is what a full-precision cache with the same number of slots would take, on all devices
// together.
func (s *session) fullBytes() int64 {
	n, shape := s.g.model.on.n, s.plan.Shape()
	shape.KVHeads = s.g.model.config.Share(n).KVHeads
	full, err := kvq.New(kvq.Config{}, shape)
	if err != nil {
		return 0 // cannot be: the plan has the same shape
	}
	return int64(n) * full.Memory().Total()
}

// prefillKey names the graph that takes a prompt in.
type prefillKey struct{ batch, columns, capacity int }

func (k prefillKey) String() string {
	return fmt.Sprintf("prompts of %d tokens, %s", k.columns, rowsText(k.batch))
}

// rowsText says how many rows a graph is for.
func rowsText(n int) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// reading is what reads prompts of a shape, compiled or not.
type reading interface {
	engine.Program
	// read takes ids [B, T], start [B] and what metricLayouts says to the filled cache and the
	// logits [B, V] of the last column.
	read(ctx context.Context, ids, start any, metrics []any) (state []sharded, logits sharded, err error)
}

// startPrompt begins to compile it.
func (g *Generator) startPrompt(plan *kvq.Plan, columns int) reading {
	if g.model.readsByLayers(plan.Shape().Batch, columns) {
		return g.startLayers(plan, columns, true)
	}
	return wholePrompt{g.startPrefill(plan, columns), g}
}

// wholePrompt reads prompts in one graph of all layers.
type wholePrompt struct {
	program
	g *Generator
}

func (w wholePrompt) read(ctx context.Context, ids, start any, metrics []any) (state []sharded, logits sharded, err error) {
	out, err := w.g.programs.run(ctx, w.program, append([]any{ids, start}, metrics...)...)
	if err != nil {
		return nil, logits, err
	}
	n := len(out) - 1
	return out[:n:n], out[n], nil
}

// startPrefill begins to compile the graph for prompts of a shape: ids [B, T], start [B] (int32)
// and what metricLayouts says to the filled cache and the logits [B, V] of the last column.
func (g *Generator) startPrefill(plan *kvq.Plan, columns int) program {
	b := plan.Shape().Batch
	in := append(wholes(shapes.Make(dtypes.Int32, b, columns), shapes.Make(dtypes.Int32, b)), g.metricLayouts(plan)...)
	return g.programs.start(prefillKey{b, columns, plan.Shape().Capacity}, in, plan.HeadAxes(),
		func(w modelNodes, in []*Node) []*Node {
			w.keyMetrics = in[2:]
			cache := plan.Init(in[1])
			hidden := g.model.hidden(w, in[0], cache, nil)
			return append(cache.Nodes(), w.lastLogits(hidden))
		})
}

// prefill runs a prompt through the model in one call: attention is exact over the prompt itself,
// the cache takes it in by its own rules. It returns the logits [B, V] of the last column, to be
// freed by the caller.
func (g *Generator) prefill(ctx context.Context, plan *kvq.Plan, p *prompt, clock *Timing) (*session, sharded, error) {
	program := g.startPrompt(plan, p.length)
	if err := clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return nil, sharded{}, err
	}
	metrics, err := g.sharedMetrics(ctx, plan, clock)
	if err != nil {
		return nil, sharded{}, err
	}
	s := &session{g: g, plan: plan, used: p.length, clock: clock}
	var logits sharded
	stage.Tell(ctx, stage.Stage{Kind: stage.Prompt, Rows: plan.Shape().Batch, Columns: p.length})
	err = clock.prefilling(func() (err error) {
		s.state, logits, err = program.read(ctx, p.ids, p.start, metrics)
		return err
	})
	if err != nil {
		return nil, sharded{}, err
	}
	if !gpu.Of(g.model.on.backend).GPU() {
		hostmemory.GiveBack() // a prompt takes far more than a step
	}
	return s, logits, nil
}

// growKey names the graph that moves a cache into a larger one.
type growKey struct {
	batch, from, to int
	own             bool // rows have lengths of their own
}

func (k growKey) String() string {
	return fmt.Sprintf("moving a cache of %d tokens into one of %d, %s", k.from, k.to, rowsText(k.batch))
}

// grow moves the cache into one of another capacity.
func (s *session) grow(ctx context.Context, capacity int) error {
	larger, err := s.plan.WithCapacity(capacity)
	if err != nil {
		return err
	}
	plan := s.plan
	program := s.g.programs.start(growKey{s.batch(), s.capacity(), capacity, plan.Shape().OwnLengths}, s.g.model.on.layouts(plan), plan.HeadAxes(),
		func(_ modelNodes, nodes []*Node) []*Node { return plan.Grow(larger, nodes) })
	if err := s.clock.compiling(func() error { return program.Wait(ctx) }); err != nil {
		return err
	}
	out, err := s.g.programs.run(context.WithoutCancel(ctx), program, s.inputs()...)
	if err != nil {
		return err
	}
	s.replace(out)
	s.plan = larger
	return nil
}
