package kvq_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/gx"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// By XLA's own figures, a step, an insertion and a reset write a cache with rows of their own
// lengths in its place, and need little beside it.
func TestRaggedInPlace(t *testing.T) {
	for name, config := range map[string]Config{"full precision": {}, "quanto": {Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 32}} {
		t.Run(name, func(t *testing.T) {
			if config.Quantized() {
				testlane.OnlyAll(t, "the same code puts rows into every cache")
			}
			const rows = 8
			shape := Shape{Layers: 2, Batch: rows, KVHeads: 2, HeadDim: 64, Capacity: 4096, DType: dtypes.Float32, OwnLengths: true}
			plan := newPlan(t, config, shape)
			shape.Batch, shape.Capacity = 1, 256
			prompt := newPlan(t, config, shape)
			n := len(plan.Shapes())
			for _, edit := range []struct {
				name   string
				inputs []shapes.Shape
				build  func(c Cache, in []*Node) []*Node
			}{
				{"step", []shapes.Shape{shapes.Make(dtypes.Bool, rows), shapes.Make(dtypes.Float32, rows, 2, 1, 64)}, func(c Cache, in []*Node) []*Node {
					c.NewTokens(in[0])
					return []*Node{attendAll(c, []*Node{in[1], in[1], in[1], in[1], in[1], in[1]})[1]}
				}},
				{"insert", append([]shapes.Shape{shapes.Make(dtypes.Int32, 1)}, prompt.Shapes()...), func(c Cache, in []*Node) []*Node {
					c.Insert(in[0], prompt.From(in[1:]))
					return nil
				}},
				{"reset", []shapes.Shape{shapes.Make(dtypes.Bool, rows)}, func(c Cache, in []*Node) []*Node {
					c.Reset(in[0])
					return nil
				}},
			} {
				exec := MustNewExec(testbackend.XLA(t), func(in []*Node) []*Node {
					gx.Reuse(in[:n])
					c := plan.From(in[:n])
					out := edit.build(c, in[n:])
					return append(c.Nodes(), out...)
				})
				g, err := exec.Compile(append(plan.Shapes(), edit.inputs...)...)
				if err != nil {
					t.Fatal(err)
				}
				needs, err := gx.CompiledMemory(g)
				if err != nil {
					t.Fatal(err)
				}
				total := plan.Memory().Total()
				if needs.Reused != total || needs.Temporary > total/4 {
					t.Errorf("%s: %d bytes of a cache of %d are written in place, and %d needed beside it, wanted all and at most a quarter",
						edit.name, needs.Reused, total, needs.Temporary)
				}
				exec.Finalize()
			}
		})
	}
}
