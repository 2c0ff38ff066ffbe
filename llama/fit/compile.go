package fit

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"

	"github.com/kvqbook/kvqbook/internal/engine"
)

// Compiled is what the two large graphs of a generation need of each device's memory.
type Compiled struct {
	Prompt Figures `json:"prompt"` // the graph that takes the prompt in
	Step   Figures `json:"step"`   // the decode loop
}

// Figures are XLA's own for one graph (PJRT's CompiledMemoryStats), in bytes.
type Figures struct {
	Inputs    int64 `json:"inputs"`    // parameters
	Outputs   int64 `json:"outputs"`   // results, those that take a parameter's place included
	Reused    int64 `json:"reused"`    // of the outputs, what takes a donated parameter's place
	Temporary int64 `json:"temporary"` // everything in between, at its largest
	Code      int64 `json:"code"`      // the program itself
}

// Part is one of the two large graphs of a generation.
type Part int

// Parts.
const (
	PromptPart Part = iota // takes the prompt in
	StepPart               // the decode loop
)

// Compile compiles graphs of a generation for a model that is not loaded, at the same time as
// Generate does, and returns what XLA says they need: the parts named, or both. What it returns is
// zero for the other one. It is an error where the backend does not tell.
func (r Request) Compile(ctx context.Context, backend compute.Backend, parts ...Part) (Compiled, error) {
	var c Compiled
	if err := r.Model.CheckDevices(r.devices()); err != nil {
		return c, err
	}
	plans, err := r.ofOne().plans()
	if err != nil {
		return c, err
	}
	sketch, err := engine.NewSketch(backend, r.Model, r.DType, r.devices(), r.Packed, r.Cache)
	if err != nil {
		return c, err
	}
	defer sketch.Finalize()
	if parts == nil {
		parts = []Part{PromptPart, StepPart}
	}
	started := map[*Figures]engine.Program{}
	for _, part := range parts {
		if part == PromptPart {
			started[&c.Prompt] = sketch.Prompt(plans[0], r.columns())
		} else {
			started[&c.Step] = sketch.Step(plans[len(plans)-1])
		}
	}
	for figures, p := range started {
		if err := p.Wait(ctx); err != nil {
			return c, err
		}
		needs, err := p.Needs()
		if err != nil {
			return c, fmt.Errorf("what XLA's graphs need is unavailable: %w", err)
		}
		*figures = Figures(needs)
	}
	return c, nil
}
