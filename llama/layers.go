package llama

import (
	"context"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/internal/gpu"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama/modelfile"
)

// A model as graphs of one layer each, which are called one after the other. XLA compiles a graph
// once for all layers that are alike, and so in a fraction of the time that it takes for a graph of
// all layers; a call costs about a tenth of a millisecond. So a prompt is read, and so short
// generations go on, see stepTokens.
//
// Every layer has a cache of its own here, without codes where there are none yet (uncoded.go).
// What all layers of a cache have in common (lengths, indices) goes into each of them, and each
// makes the same of it.

// byLayers reports whether tokens go layer by layer: on XLA's CPU backend. On several devices
// nothing was measured. 16-bit weights stay in one graph with their loop, out of which XLA takes
// their conversion.
func (m *Model) byLayers() bool {
	return m.on.n == 1 && m.dtype == dtypes.Float32 && gpu.Of(m.on.backend).Platform == "cpu"
}

// layersOnGPU is up to how many tokens, of all rows, a prompt is read layer by layer on a GPU. A
// call takes half a millisecond of the host there, and that is what a layer of Llama-2-7B takes for
// so many tokens on an H200; the graph of all layers takes XLA five times as long to compile. A
// step of one token would take four times as long as in the loop.
const layersOnGPU = 512

// readsByLayers reports whether a prompt of so many columns is read layer by layer.
func (m *Model) readsByLayers(batch, columns int) bool {
	onGPU := m.on.n == 1 && gpu.Of(m.on.backend).CUDA()
	return m.byLayers() || onGPU && batch*columns <= layersOnGPU
}

// stepGraphs are the graphs of a step of t tokens of each row.
type stepGraphs struct {
	layerGraphs
	g    *Generator
	plan *kvq.Plan
	key  layerStep
	ones []kvqhook.Layer // of each layer
	own  []int           // how many arrays of the cache are a layer's own
	// uncoded: no token is in codes, and the graphs of layers get and give no arrays of codes
	uncoded bool

	embed  program   // ids [B, t] int32 to x [B, t, hidden]
	layers []program // of each layer; layers that are alike have one
	last   program   // x to that of the newest tokens, [B, 1, hidden]
	head   program   // that to logits [B, V]; prompts and further tokens share it
}

// layerStep tells apart steps of tokens through a cache.
type layerStep struct {
	batch, tokens, capacity int
	fresh                   bool // of a prompt: the cache is made
}

func (s layerStep) String() string {
	if s.fresh {
		return prefillKey{s.batch, s.tokens, s.capacity}.String()
	}
	return decodeKey{batch: s.batch, capacity: s.capacity}.String()
}

// embedKey, layerKey, lastKey and headKey name the graphs. first is the first of the layers that
// are alike.
type (
	embedKey struct{ layerStep }
	layerKey struct {
		layerStep
		first int
	}
	lastKey struct{ layerStep }
	headKey struct{ batch int }
)

func (k headKey) String() string { return "scoring the vocabulary, " + rowsText(k.batch) }

// startLayers begins to compile the graphs of a step: of a prompt, from which the cache is made, or
// of further tokens.
func (g *Generator) startLayers(plan *kvq.Plan, tokens int, fresh bool) *stepGraphs {
	c, b := g.model.config, plan.Shape().Batch
	l := &stepGraphs{layerGraphs: newLayerGraphs(g.programs), g: g, plan: plan, key: layerStep{b, tokens, plan.Shape().Capacity, fresh}}
	for i := range l.shares {
		l.ones = append(l.ones, kvqhook.OneLayer(plan, i))
		_, own, _ := l.planOf(i)
		l.own = append(l.own, len(own))
	}
	l.uncoded = l.withoutCodes()
	for i := range l.shares {
		l.layers = append(l.layers, l.startLayer(layerKey{l.key, l.firstAlike(i)}))
	}
	l.embed = l.startEmbed(embedKey{l.key}, b, tokens)
	l.last = g.programs.startPlain(lastKey{l.key}, l.hidden(tokens), nil, func(in []*Node) []*Node {
		return []*Node{Slice(in[0], AxisRange(), AxisRange(-1))}
	})
	l.head = l.startOn(l.top, headKey{b}, l.hidden(1), nil, func(w weightNodes, in []*Node) []*Node {
		return []*Node{modelNodes{top: w}.lastLogits(rmsNorm(in[0], w.vector(modelfile.FinalNorm), c.RMSNormEps))}
	})
	return l
}

// firstAlike is the first layer whose graph is that of a layer.
func (l *stepGraphs) firstAlike(layer int) int {
	return slices.IndexFunc(l.ones, func(one kvqhook.Layer) bool { return l.kind(one) == l.kind(l.ones[layer]) })
}

// hidden is how x of so many tokens a row lies.
func (l *stepGraphs) hidden(tokens int) []layout {
	return wholes(shapes.Make(l.g.model.dtype, l.key.batch, tokens, l.g.model.config.HiddenSize))
}

// programs are all graphs of a step; some layers have the same.
func (l *stepGraphs) programs() []program {
	return append(slices.Clone(l.layers), l.embed, l.last, l.head)
}

// planOf is the cache of a layer; own are its own arrays, shared those that all layers share.
func (l *stepGraphs) planOf(layer int) (plan *kvq.Plan, own, shared []layout) {
	plan = l.ones[layer].Plan.(*kvq.Plan)
	state := l.g.model.on.layouts(plan)
	return plan, state[l.ones[layer].Shared:], state[:l.ones[layer].Shared]
}

// startLayer begins to compile the graph of a layer. It takes the layer's weights, its own arrays
// of the cache (but for those of codes, where graphs have none), what layers share of it, and x; of
// a prompt the weights, the padding [B] int32 of rows, x, and the layer's part of what
// metricLayouts says. It returns the own arrays, x, and what layers share.
func (l *stepGraphs) startLayer(key layerKey) program {
	g := l.g
	plan, own, shared := l.planOf(key.first)
	given, _ := cutCodes(l, key.first, own)
	in := slices.Concat(given, shared)
	if key.fresh {
		in = wholes(shapes.Make(dtypes.Int32, key.batch))
	}
	in = slices.Concat(in, l.hidden(key.tokens))
	if metrics := g.metricLayouts(l.plan); key.fresh && metrics != nil {
		in = append(in, metrics[key.first])
	}
	return l.startOn(l.shares[key.first], key, in, nil, func(w weightNodes, in []*Node) []*Node {
		var cache kvq.Cache
		if key.fresh {
			cache, in = plan.Init(in[0]), in[1:]
		} else {
			cache, in = l.takeCache(key.first, in)
		}
		x := in[0]
		var metric *Node
		if len(in) > 1 {
			metric = in[1]
		}
		x = g.model.layer(cache, 0, w, metric, newRotation(cache.Positions(key.tokens), g.model.rope), x)
		cache.Advance()
		after := cache.Nodes()
		made, _ := cutCodes(l, key.first, after[len(shared):])
		return slices.Concat(made, []*Node{x}, after[:len(shared)])
	})
}

// takeCache takes a layer's cache off the front of a graph's parameters, to be updated in its
// place.
func (l *stepGraphs) takeCache(layer int, in []*Node) (cache kvq.Cache, rest []*Node) {
	plan, own, shared := l.planOf(layer)
	given, codes := cutCodes(l, layer, own)
	at, n := len(given), len(given)+len(shared)
	gx.Reuse(in[:at])
	return plan.From(slices.Concat(in[at:n], joinCodes(l, layer, in[:at], standIns(in[0].Graph(), codes)))), in[n:]
}

// Wait returns when all are compiled, or early with the context's error.
func (l *stepGraphs) Wait(ctx context.Context) error {
	return waitAll(ctx, l.programs())
}

func waitAll(ctx context.Context, programs []program) error {
	for _, p := range programs {
		if err := p.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Needs is what the graphs of a prompt take of the device's memory by XLA's figures: the weights,
// the cache and logits that they make, and the most that one of them takes in between, x included.
func (l *stepGraphs) Needs() (sum gx.Compiled, err error) {
	size := func(list []layout) (bytes int64) {
		for _, a := range list {
			bytes += int64(a.shape.ByteSize())
		}
		return bytes
	}
	sum.Inputs = size(l.top.layouts())
	for _, s := range l.shares {
		sum.Inputs += size(s.layouts())
	}
	sum.Outputs = size(l.g.model.on.layouts(l.plan)) + int64(l.key.batch*l.g.model.config.VocabSize)*4
	between := 2 * size(l.hidden(l.key.tokens))
	seen := map[program]bool{}
	for _, p := range l.programs() {
		if seen[p] {
			continue
		}
		seen[p] = true
		needs, err := p.Needs()
		if err != nil {
			return gx.Compiled{}, err
		}
		sum.Temporary = max(sum.Temporary, needs.Temporary+between)
		sum.Code += needs.Code
	}
	return sum, nil
}

// read makes the graphs of a prompt a [reading].
func (l *stepGraphs) read(ctx context.Context, ids, start any, metrics []any) (state []sharded, logits sharded, err error) {
	return l.through(ctx, ids, func(i int, x sharded) (args []any, codes []sharded) {
		args = []any{start, x}
		if len(metrics) > 0 {
			args = append(args, metrics[i])
		}
		return args, l.noCodes(i)
	})
}

// step feeds the newest token of each row, ids [B, 1], with a cache that it takes over.
func (l *stepGraphs) step(ctx context.Context, ids any, state []sharded) (after []sharded, logits sharded, err error) {
	take, done := l.taking(state)
	defer done()
	return l.through(ctx, ids, func(i int, x sharded) (args []any, codes []sharded) {
		args, codes = take(i)
		return append(args, x), codes
	})
}

// taking takes a cache apart. take is called for one layer after the other and gives its own
// arrays, donated, and those that all share, and beside them the arrays of codes that its graph
// does without; done frees what is left.
func (l *stepGraphs) taking(state []sharded) (take func(layer int) (args []any, codes []sharded), done func()) {
	shared, rest := state[:l.ones[0].Shared], state[l.ones[0].Shared:]
	take = func(layer int) (args []any, codes []sharded) {
		given, codes := cutCodes(l, layer, rest[:l.own[layer]])
		for _, s := range given {
			args = append(args, donated(s))
		}
		rest = rest[l.own[layer]:]
		for _, s := range shared {
			args = append(args, s)
		}
		return args, codes
	}
	return take, func() { free(shared...); free(rest...) }
}

// through calls all graphs of a step in order; arguments are those of a layer behind its weights,
// and the arrays of codes that its graph does without. When ctx ends it returns after the layer
// that is under way.
func (l *stepGraphs) through(ctx context.Context, ids any, arguments func(layer int, x sharded) (args []any, codes []sharded)) (state []sharded, logits sharded, err error) {
	// What arguments donates is gone with the call that gets it, so they are asked for when nothing
	// else can keep the call from being made.
	run := func(p program, of share, args func() []any) ([]sharded, error) {
		if err := p.Wait(ctx); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return l.run(context.WithoutCancel(ctx), p, of, args()...)
	}
	one := func(x any) func() []any { return func() []any { return []any{x} } }
	out, err := run(l.embed, l.top, one(ids))
	if err != nil {
		return nil, logits, err
	}
	x, made := out[0], &layerResults{}
	defer func() { free(x) }()
	for i := range l.layers {
		var codes []sharded
		out, err := run(l.layers[i], l.shares[i], func() (args []any) {
			args, codes = arguments(i, x)
			return args
		})
		if err != nil {
			free(codes...)
			made.free()
			return nil, logits, err
		}
		free(x)
		at := len(out) - 1 - l.ones[i].Shared
		x = out[at]
		made.add(slices.Concat(joinCodes(l, i, out[:at], codes), out[at+1:]), l.ones[i].Shared)
	}
	if out, err = run(l.last, share{}, one(x)); err == nil {
		free(x)
		x = out[0]
		out, err = run(l.head, l.top, one(x))
	}
	if err != nil {
		made.free()
		return nil, logits, err
	}
	return made.state(), out[0], nil
}

// layerResults collects what layers make of a cache.
type layerResults struct{ own, shared []sharded }

// add takes a layer's own arrays and those that all share, of which the last layer's are kept.
func (r *layerResults) add(out []sharded, shared int) {
	free(r.shared...)
	at := len(out) - shared
	r.own, r.shared = append(r.own, out[:at]...), out[at:]
}

func (r *layerResults) state() []sharded { return slices.Concat(r.shared, r.own) }
func (r *layerResults) free()            { free(r.own...); free(r.shared...) }
