package kvq_test

import (
	"bytes"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// operations of FuzzSequences, by number.
const (
	oneToken = iota
	threeAtOnce
	smallCrop
	deepCrop
	swapRows
	operationCount
)

// FuzzSequences plays appends, chunks, rollbacks and reorderings in any order, and compares every
// answer with the oracle's and what is held with what was given. Each byte is an operation; 48 at
// most.
func FuzzSequences(f *testing.F) {
	testlane.Slow(f, "compiles a graph for every operation")
	repeat := func(n int, operations ...byte) []byte { return bytes.Repeat(operations, n) }
	f.Add([]byte{})
	f.Add(repeat(48, oneToken))
	f.Add(repeat(16, threeAtOnce, oneToken, smallCrop))
	f.Add(append(repeat(14, threeAtOnce), repeat(11, deepCrop, threeAtOnce, swapRows)...))
	f.Add(append(repeat(13, threeAtOnce), repeat(8, oneToken, swapRows, smallCrop, deepCrop)...))
	f.Add(append(repeat(4, deepCrop), repeat(20, threeAtOnce)...))
	shape := Shape{Layers: 1, Batch: 2, KVHeads: 1, HeadDim: 16, Capacity: 96, DType: dtypes.Float32}
	config := Config{Backend: Blocks, NBitsKey: 4, NBitsValue: 3, QGroupSizeKey: 32, QGroupSizeValue: 16, AxisKey: PerChannel, ResidualLength: 3, Sinks: 1}
	c := suiteCase{config: config, dtype: dtypes.Float32, dim: 16}
	plan := newPlan(f, config, shape)
	compiled := newSession(f, plan, makeInputs(21, shape, 2, shape.Capacity, 0, 3))
	f.Fuzz(func(t *testing.T, operations []byte) {
		s := compiled.fork()
		s.t = t
		s.prompt(5)
		for i, op := range operations[:min(len(operations), 48)] {
			switch op % operationCount {
			case oneToken:
				if s.slots+1 > shape.Capacity {
					continue
				}
				c.requireSteps(t, "fuzz", s, 1, 2)
			case threeAtOnce:
				if s.slots+3 > shape.Capacity {
					continue
				}
				before := s.held()
				s.step(3)
				if worst, at := worstAttention(s, 3, s.out[0], s.expected(0, 3, before[0])); worst > c.tolerance() {
					t.Fatalf("operation %d: a chunk's attention is off by %.2g at %s", i, worst, at)
				}
			case smallCrop:
				s.crop(min(2, s.slots))
				s.in = s.in.changed(uint64(i), s.slots, shape)
			case deepCrop: // reaches codes
				s.crop(min(17, s.slots))
				s.in = s.in.changed(uint64(i), s.slots, shape)
			case swapRows:
				s.reorder(1, 0)
				s.in = s.in.pick(false, 1, 0)
			}
			for row, held := range s.held()[0] {
				if want := max(0, s.slots-s.in.start[row]); len(held) != want {
					t.Fatalf("operation %d: row %d holds %d tokens, wanted %d", i, row, len(held), want)
				}
			}
		}
	})
}
