package kvq

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/support/exceptions"
	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/kvq/internal/codes"
)

// Plan is a checked configuration for a shape: the sizes of every array of a cache, known before
// anything is allocated. It is immutable and safe for concurrent use.
type Plan struct {
	config Config
	shape  Shape

	// The following are for quantized caches alone; all numbers are of tokens.
	policy      policy
	sinks       int // S, exact first tokens
	windowSlots int // W, slots of the ring
	block       int // U, tokens given up at once
	// code slots that an iteration of a flush fills, whole blocks: see mostFlushSlots
	flushSlots int
	// tokens are coded in whole multiples of it: the largest per-channel group, else 1
	unit      int
	codeSlots int // C, room for coded tokens

	form   Form // see WithForm
	layers []layerPlan

	flushedApart bool // steps do not flush, see kvqhook.Apart

	// state and stateShapes are what arrays and Shapes give, made once: a session asks in every
	// step. nil in plans that were changed.
	state       []array
	stateShapes []shapes.Shape
}

// layerPlan is how a layer is coded. Every layer has arrays of its own rather than a share of a
// stack of all layers: the loops that XLA makes of two layers are then the same code, which it
// compiles once.
type layerPlan struct{ key, value codes.Format }

// New checks a configuration against a shape. The zero Config gives a full-precision cache. The
// groups of [Tutorial], of presets and of a configuration that names no size are fitted to the head
// dimension ([Plan.Config] has what is used); other sizes that do not fit are refused.
func New(config Config, shape Shape) (*Plan, error) {
	if err := shape.validate(); err != nil {
		return nil, err
	}
	r, err := config.resolveSides(shape.HeadDim, shape.valueDim())
	if err != nil {
		return nil, err
	}
	config = r.Config
	if err := checkLayers(r.layers, shape.Layers); err != nil {
		return nil, err
	}
	if err := shape.checkBytes(config.ResidualLength + config.Sinks); err != nil {
		return nil, err
	}
	shape = shape.plain()
	p := &Plan{config: config, shape: shape}
	if !config.Quantized() {
		p.listState()
		return p, nil
	}
	p.unit = 1
	for layer := range shape.Layers {
		l := layerPlan{r.settings(true, layer).format(shape.HeadDim), r.settings(false, layer).format(shape.valueDim())}
		for _, f := range []codes.Format{l.key, l.value} {
			if f.PerChannel {
				p.unit = max(p.unit, f.Group)
			}
		}
		p.layers = append(p.layers, l)
	}
	p.block = max(p.unit, codes.BlockTokens)
	p.policy = r.backend.policy(config, p.block)
	p.sinks, p.windowSlots = p.policy.sinks(), p.policy.threshold()
	// One unit more where groups run along tokens: a prompt or a crop may leave one partly filled.
	p.codeSlots = (max(shape.Capacity-p.policy.kept(), 1) + p.unit - 1 + p.block - 1) / p.block * p.block
	p.flushSlots = p.block
	if p.unit == 1 {
		p.flushSlots = min(p.policy.flushSlots(), mostFlushSlots, p.codeSlots)
	}
	p.listState()
	return p, nil
}

func (p *Plan) listState() {
	p.state = p.listArrays()
	for _, a := range p.state {
		p.stateShapes = append(p.stateShapes, a.shape)
	}
	p.stateShapes = slices.Clip(p.stateShapes) // whoever appends gets a copy
}

// toChange is a copy whose fields may be changed: it has no list of its state.
func (p *Plan) toChange() Plan {
	c := *p
	c.state, c.stateShapes = nil, nil
	return c
}

// Config returns the configuration the plan was made from, with the group sizes that are used where
// they were fitted to the head dimension: see [Config.For].
func (p *Plan) Config() Config { return p.config }

// Shape returns the shape the plan was made for.
func (p *Plan) Shape() Shape { return p.shape }

// Shapes returns the shapes of the state, in the order of [Cache.Nodes].
func (p *Plan) Shapes() []shapes.Shape {
	var out []shapes.Shape
	for _, a := range p.arrays() {
		out = append(out, a.shape.Clone())
	}
	return out
}

// Init returns an empty cache in the graph of start [B] int32: how many slots of padding each row
// begins with.
func (p *Plan) Init(start *Node) Cache {
	g := start.Graph()
	if start.DType() != dtypes.Int32 || start.Rank() != 1 || start.Shape().Dim(0) != p.shape.Batch {
		exceptions.Panicf("kvq.Plan.Init: start %s, want int32 [%d]: the padding of each row", start.Shape(), p.shape.Batch)
	}
	var nodes []*Node
	for _, a := range p.arrays() {
		if a.role == roleStart {
			nodes = append(nodes, start)
			continue
		}
		nodes = append(nodes, gx.Fill(g, a.shape, p.empty(a.role)))
	}
	return p.guard(p.cache(nodes, true), true)
}

// From rebuilds a cache from its state: nodes in the order of [Cache.Nodes], that came in as
// parameters of a graph or as loop state.
func (p *Plan) From(nodes []*Node) Cache {
	want := p.arrays()
	if len(nodes) != len(want) {
		exceptions.Panicf("kvq.Plan.From: %d nodes, the state of this cache has %d", len(nodes), len(want))
	}
	for i, a := range want {
		if !nodes[i].Shape().Equal(a.shape) {
			exceptions.Panicf("kvq.Plan.From: node %d (%s) is %s, want %s", i, a.name, nodes[i].Shape(), a.shape)
		}
	}
	return p.guard(p.cache(nodes, false), false)
}

// cache makes a cache of its state. It is fresh where nothing was ever appended.
func (p *Plan) cache(nodes []*Node, fresh bool) Cache {
	if !p.config.Quantized() {
		c := newFullCache(p.shape, nodes)
		c.fresh = fresh
		return c
	}
	c := newQuantizedCache(p, nodes)
	c.fresh = fresh
	return c
}
