package llama

import (
	"context"
	"fmt"
	"time"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/kvq"
)

// DecodeTimer measures what a token costs at a given context, without reading a prompt of that length first: its cache has made-up
// contents, see [kvq.Plan.Synthetic]. For benchmarks.
type DecodeTimer struct {
	g       *Generator
	plan    *kvq.Plan
	key     decodeKey
	program *program
	state   []*tensors.Tensor
	inputs  []any
	steps   int

	Compile time.Duration // of the decode graph
}

// NewDecodeTimer prepares a decode loop of steps tokens for batch rows that hold context tokens each. Free it with Finalize.
func (g *Generator) NewDecodeTimer(ctx context.Context, batch, contextTokens, steps int) (*DecodeTimer, error) {
	if steps < 1 || steps > maxBlock {
		return nil, fmt.Errorf("a decode timer of %d steps, want 1 to %d", steps, maxBlock)
	}
	plan, err := g.Plan(batch, contextTokens+maxBlock)
	if err != nil {
		return nil, err
	}
	t := &DecodeTimer{g: g, plan: plan, steps: steps}
	gc := GenerateConfig{MaxNewTokens: maxBlock, EOS: []int{}}
	pick := newPicking(gc, g.model.config, batch)
	t.key = decodeKey{pick: pick.kind, batch: batch, capacity: plan.Shape().Capacity}
	start := time.Now()
	t.program = g.startDecode(plan, t.key)
	if err := t.program.wait(ctx); err != nil {
		return nil, err
	}
	t.Compile = time.Since(start)
	fill, err := NewExec(g.model.backend, func(one *Node) []*Node {
		return plan.Synthetic(one.Graph(), contextTokens).Nodes()
	})
	if err != nil {
		return nil, err
	}
	defer fill.Finalize()
	if t.state, err = fill.Call(int32(1)); err != nil {
		return nil, err
	}
	newest := make([]int32, batch)
	for i := range newest {
		newest[i] = int32(i % g.model.config.VocabSize)
	}
	t.inputs = []any{[]int32{int32(steps)}, newest, make([]bool, batch), []int32{0}}
	t.inputs = append(t.inputs, pick.inputs(0, steps, t.key.block())...)
	return t, nil
}

// Run makes the steps once and returns the time of one step. Every run starts from the same context.
func (t *DecodeTimer) Run(ctx context.Context) (time.Duration, error) {
	args := make([]any, 0, len(t.state)+len(t.inputs))
	for _, s := range t.state {
		args = append(args, s)
	}
	start := time.Now()
	out, err := t.g.programs.run(ctx, t.program, append(args, t.inputs...)...)
	if err != nil {
		return 0, err
	}
	defer free(out)
	// Reading a scalar waits for the device.
	turns, err := tensors.CopyFlatData[int32](out[len(t.state)+1])
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	if int(turns[0]) != t.steps {
		return 0, fmt.Errorf("the decode loop made %d steps, want %d", turns[0], t.steps)
	}
	return took / time.Duration(t.steps), nil
}

// Memory returns the bytes of the cache as its plan predicts them.
func (t *DecodeTimer) Memory() kvq.Memory { return t.plan.Memory() }

// Live counts the bytes of the cache's arrays as they are on the device.
func (t *DecodeTimer) Live() (kvq.Memory, error) { return kvq.Measure(t.plan, t.state) }

// Finalize frees the cache.
func (t *DecodeTimer) Finalize() { free(t.state) }
