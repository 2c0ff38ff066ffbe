package llama

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// Compiled is what the two large graphs of a generation need of each device's memory, in XLA's own figures.
type Compiled struct {
	Prompt gx.Compiled `json:"prompt"` // the graph that takes the prompt in
	Step   gx.Compiled `json:"step"`   // the decode loop
}

// Part is one of the two large graphs of a generation.
type Part int

const (
	PromptPart Part = iota // takes the prompt in
	StepPart               // the decode loop
)

// Compile compiles graphs of a generation for a model that is not loaded, at the same time as Generate
// does, and returns what XLA says they need: the parts named, or both. What it returns is zero for the
// other one. It is an error where the backend does not tell.
func (r Request) Compile(ctx context.Context, backend compute.Backend, parts ...Part) (Compiled, error) {
	var c Compiled
	plans, err := r.plans()
	if err != nil {
		return c, err
	}
	m, err := newModel(backend, r.Model, r.DType, r.devices())
	if err != nil {
		return c, err
	}
	m.packed = r.Packed
	g, err := NewGenerator(m, r.Cache)
	if err != nil {
		return c, err
	}
	defer g.Finalize()
	pick := newPicking(GenerateConfig{MaxNewTokens: 1}, r.Model, r.Batch)
	if parts == nil {
		parts = []Part{PromptPart, StepPart}
	}
	started := map[*gx.Compiled]*program{}
	for _, part := range parts {
		if part == PromptPart {
			started[&c.Prompt] = g.startPrefill(plans[0], r.columns())
		} else {
			started[&c.Step] = g.startDecode(plans[len(plans)-1], decodeKey{pick: pick.kind})
		}
	}
	for needs, p := range started {
		if err := p.Wait(ctx); err != nil {
			return c, err
		}
		if p.needsErr != nil {
			return c, fmt.Errorf("what XLA's graphs need is unavailable: %w", p.needsErr)
		}
		*needs = p.needs
	}
	return c, nil
}

// Request is a generation whose memory is asked for, before anything is loaded.
type Request struct {
	Model     Config
	DType     dtypes.DType // of weights and of what the cache keeps exact
	Packed    bool         // weights stay as a GGUF file packs them, see PackedWeights
	Cache     kvq.Config
	Beside    *kvq.Config // of a second cache at the same time, as an evaluation has; nil: none
	Batch     int
	Prompt    int // columns, padding included
	NewTokens int // at most; 0: the prompt alone
	Capacity  int // slots of the cache; 0: as many as Generate takes
	Devices   int // over which the model is spread; 0 is 1
}

func (r Request) devices() int { return max(1, r.Devices) }

// columns is how many the prompt is padded to.
func (r Request) columns() int {
	if r.Capacity > 0 {
		return min(promptBucket(r.Prompt), r.Capacity)
	}
	return promptBucket(r.Prompt)
}

// plans are the caches of the generation, each twice as long as the one before, on one device.
func (r Request) plans() ([]*kvq.Plan, error) {
	shape := kvq.Shape{Layers: r.Model.Layers, Batch: r.Batch, KVHeads: r.Model.KVHeads, HeadDim: r.Model.HeadDim,
		DType: r.DType, SlidingWindow: r.Model.SlidingWindow}
	if r.Capacity > 0 {
		shape.Capacity = r.Capacity
		plan, err := kvq.New(r.Cache, shape)
		if err != nil {
			return nil, usererr.New("cache: %w", err)
		}
		return []*kvq.Plan{plan}, nil
	}
	limit := max(1, min(r.NewTokens, r.Model.MaxPositions-r.Prompt+1)) // as Generate ends
	var list []*kvq.Plan
	for capacity := firstCapacity(r.columns(), limit); ; capacity *= 2 {
		shape.Capacity = capacity
		plan, err := kvq.New(r.Cache, shape)
		if err != nil {
			return nil, usererr.New("cache: %w", err)
		}
		list = append(list, plan)
		if capacity >= r.columns()+limit-1 {
			return list, nil
		}
	}
}
