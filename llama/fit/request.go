package fit

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/generate"
	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// Request is a generation whose memory is asked for, before anything is loaded.
type Request struct {
	Model     llama.Config
	DType     dtypes.DType // of weights and of what the cache keeps exact
	Packed    bool         // weights stay as a GGUF file packs them, see llama.PackedWeights
	Cache     kvq.Config
	Beside    *kvq.Config // of a second cache at the same time, as an evaluation has; nil: none
	Batch     int
	Prompt    int // columns, padding included
	NewTokens int // at most; 0: the prompt alone
	Capacity  int // slots of the cache; 0: as many as Generate takes
	Devices   int // over which the model is sharded; 0 is 1

	// Backend is what it will run on, where that is open already: a prompt may need less there.
	// Nil: any of them.
	Backend compute.Backend
}

func (r Request) devices() int { return max(1, r.Devices) }

// ofOne is what one of the devices does of it.
func (r Request) ofOne() Request {
	r.Model, r.Devices = r.Model.Share(r.devices()), 1
	return r
}

// columns is how many the prompt is padded to.
func (r Request) columns() int {
	if r.Capacity > 0 {
		return min(generate.PromptColumns(r.Prompt), r.Capacity)
	}
	return generate.PromptColumns(r.Prompt)
}

// plans are the caches of the generation, as it grows, on one device.
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
	slots := r.columns() + limit - 1
	for capacity := generate.FirstCapacity(r.columns(), limit); ; capacity = generate.NextCapacity(capacity, slots) {
		shape.Capacity = capacity
		plan, err := kvq.New(r.Cache, shape)
		if err != nil {
			return nil, usererr.New("cache: %w", err)
		}
		list = append(list, plan)
		if capacity >= slots {
			return list, nil
		}
	}
}
