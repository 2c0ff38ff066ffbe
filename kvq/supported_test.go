package kvq_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/kvq"
)

func TestSupported(t *testing.T) {
	for name, backend := range map[string]compute.Backend{"pure Go": testbackend.Go(t), "XLA": testbackend.XLA(t)} {
		for range 2 {
			if err := kvq.Supported(backend); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// What a backend lacks is named before a graph is built, and a pure-Go backend whose loops may not
// end is refused, by a loop's graph too.
func TestNotSupported(t *testing.T) {
	err := kvq.Supported(lacking{testbackend.Go(t)})
	if err == nil || !strings.Contains(err.Error(), "need XLA") || !strings.Contains(err.Error(), "has no DynamicUpdateSlice, Gather") {
		t.Errorf("a backend that lacks operations: %v, want an error that names what it lacks", err)
	}
	parallel, err := compute.NewWithConfig("go")
	if err != nil {
		t.Fatal(err)
	}
	defer parallel.Finalize()
	err = kvq.Supported(parallel)
	if err == nil || !strings.Contains(err.Error(), "open it as go:ops_sequential") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("a pure-Go backend in parallel: %v, want one line that says how to open it", err)
	}
	plan := newPlan(t, kvq.Tutorial(), kvq.Shape{Layers: 1, Batch: 1, KVHeads: 1, HeadDim: 64, Capacity: 128, DType: dtypes.Float32})
	s := newSession(t, plan, makeInputs(1, plan.Shape(), 1, 2, 0))
	s.on = parallel
	s.prompt(1)
	step, stepErr := graph.NewExec(parallel, func(nodes []*graph.Node) []*graph.Node {
		n := len(plan.Shapes())
		return attendAll(plan.From(nodes[:n]), nodes[n:])
	})
	if stepErr != nil {
		t.Fatal(stepErr)
	}
	var inputs []any
	for _, x := range s.state {
		inputs = append(inputs, x)
	}
	if _, stepErr = step.Call(append(inputs, s.in.tensors(1, 2)...)...); stepErr == nil || !strings.Contains(stepErr.Error(), err.Error()) {
		t.Errorf("a step: %v, want the line of Supported", stepErr)
	}
}

// lacking is a backend without some operations.
type lacking struct{ compute.Backend }

func (b lacking) Capabilities() compute.Capabilities {
	c := b.Backend.Capabilities()
	c.Operations = maps.Clone(c.Operations)
	delete(c.Operations, compute.OpTypeDynamicUpdateSlice)
	delete(c.Operations, compute.OpTypeGather)
	return c
}

func TestSupportedOnCUDA(t *testing.T) {
	if err := kvq.Supported(testbackend.CUDA(t)); err != nil {
		t.Error(err)
	}
}

func BenchmarkSupported(b *testing.B) {
	backend := testbackend.XLA(b)
	for b.Loop() {
		if err := kvq.Supported(backend); err != nil {
			b.Fatal(err)
		}
	}
}
