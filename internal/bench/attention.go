package bench

import (
	"context"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/kvq"
)

// AttentionShape is attention in decode.
type AttentionShape struct {
	Batch, Heads, KVHeads, HeadDim int
	DType                          dtypes.DType // of queries and of what the cache keeps exact
	Layers                         int          // each with a cache of its own; 0: one
	GraphForm                      bool         // no kernel, see [kvq.Plan.WithForm]
}

// Attention times steps of decode attention over a cache that holds tokens tokens a row: append a
// token, attend, go on with the output as the next query, layer by layer, so that nothing can be
// left out.
type Attention struct {
	backend compute.Backend
	exec    *Exec
	state   []*tensors.Tensor
	query   *tensors.Tensor
	steps   int
	layers  int
	read    int64
}

// capacityUnit divides the capacities of the caches that are timed.
const capacityUnit = 256

// NewAttention compiles the loop and fills the cache.
func NewAttention(backend compute.Backend, config kvq.Config, shape AttentionShape, tokens, steps int) (*Attention, error) {
	layers := max(1, shape.Layers)
	// A capacity like those of generation: rows of an odd length would slow full precision's
	// products down.
	capacity := (tokens + steps + capacityUnit - 1) / capacityUnit * capacityUnit
	plan, err := kvq.New(config, kvq.Shape{Layers: layers, Batch: shape.Batch, KVHeads: shape.KVHeads, HeadDim: shape.HeadDim,
		Capacity: capacity, DType: shape.DType})
	if err != nil {
		return nil, err
	}
	if shape.GraphForm {
		plan = plan.WithForm(kvq.Words)
	}
	memory := plan.Memory()
	coded := memory.Codes + memory.Scales + memory.Zeros
	a := &Attention{backend: backend, steps: steps, layers: layers,
		read: (memory.Total() - coded*int64(capacity-tokens)/int64(capacity)) / int64(layers)}
	fill, err := NewExec(backend, func(one *Node) []*Node {
		g := one.Graph()
		query := gx.MulScalar(ConvertDType(IotaFull(g, shapes.Make(dtypes.Int32, shape.Batch, shape.Heads, 1, shape.HeadDim)), dtypes.Float32), 1e-3)
		query = ConvertDType(Cos(query), shape.DType)
		return append([]*Node{query}, kvqhook.Synthetic(plan, g, tokens)...)
	})
	if err != nil {
		return nil, err
	}
	defer fill.Finalize()
	out, err := fill.Call(int32(1))
	if err != nil {
		return nil, err
	}
	a.query, a.state = out[0], out[1:]
	a.exec, err = NewExec(backend, func(in []*Node) *Node {
		g := in[0].Graph()
		initial := append([]*Node{gx.Scalar(g, dtypes.Int32, 0), in[0]}, in[1:]...)
		end := gx.Loop(initial,
			func(st []*Node) *Node { return gx.LessThanScalar(st[0], steps) },
			func(st []*Node) []*Node {
				cache, query := plan.From(st[2:]), st[1]
				for layer := range layers {
					token := Slice(query, AxisRange(), AxisRange(0, shape.KVHeads))
					cache.Layer(layer).Append(token, token)
					// Half of the old query stays, so that the loop cannot settle.
					query = gx.MulScalar(Add(query, cache.Layer(layer).Attend(query)), 0.5)
				}
				cache.Advance()
				return append([]*Node{gx.AddScalar(st[0], 1), query}, cache.Nodes()...)
			})
		return gx.ReduceSum(ConvertDType(end[1], dtypes.Float32))
	})
	if err != nil {
		a.Finalize()
		return nil, err
	}
	return a, nil
}

// Run is a [Run]: the time of one layer in one step.
func (a *Attention) Run(context.Context) (time.Duration, error) {
	args := []any{a.query}
	for _, t := range a.state {
		args = append(args, t)
	}
	start := time.Now()
	out, err := a.exec.Call(args...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = out[0].FinalizeAll() }()
	if _, err := tensors.CopyFlatData[float32](out[0]); err != nil { // waits for the device
		return 0, err
	}
	return time.Since(start) / time.Duration(a.steps*a.layers), nil
}

// Bytes are what the cache of a layer takes.
func (a *Attention) Bytes() (sum int64) {
	for _, t := range a.state {
		sum += t.ByteSize()
	}
	return sum / int64(a.layers)
}

// Read are the bytes of a layer's cache that a step reads: all of them but for the blocks of codes
// that are not in use when it begins.
func (a *Attention) Read() int64 { return a.read }

// Finalize frees the cache and the compiled loop.
func (a *Attention) Finalize() {
	for _, t := range append(a.state, a.query) {
		if t != nil {
			_ = t.FinalizeAll()
		}
	}
	if a.exec != nil {
		a.exec.Finalize()
	}
}
