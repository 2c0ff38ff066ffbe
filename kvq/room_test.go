package kvq_test

import (
	"fmt"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/kvqbook/kvqbook/internal/testlane"
	. "github.com/kvqbook/kvqbook/kvq"
)

// Rollbacks that reach into codes, again and again, until the cache is full: groups that a cut
// leaves half empty must not use up the room of tokens still to come.
func TestDeepCropsKeepRoom(t *testing.T) {
	testlane.Slow(t, "compiles three caches")
	for _, c := range []suiteCase{
		{name: "keys per channel", config: blocks(4, func(c *Config) { perChannelKeys(c); c.Sinks = 2 }), dtype: dtypes.Float32, dim: 32},
		{name: "both per channel, rotated", config: blocks(8, func(c *Config) {
			perChannelKeys(c)
			c.AxisValue, c.ResidualLength, c.RotateKeys, c.RotateValues = PerChannel, 0, true, true
		}), dtype: dtypes.Float32, dim: 32},
		{name: "quanto per channel", config: Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 32, AxisKey: PerChannel}, dtype: dtypes.Float32, dim: 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			shape := Shape{Layers: 1, Batch: 2, KVHeads: 2, HeadDim: c.dim, Capacity: 96, DType: c.dtype}
			s := newSession(t, newPlan(t, c.config, shape), makeInputs(11, shape, suiteHeads, 96, 0, 9))
			s.prompt(20)
			for round := 0; s.slots+42 <= shape.Capacity; round++ {
				c.requireSteps(t, fmt.Sprintf("round %d", round), s, 42, 0.5)
				s.crop(39)
				for row, held := range s.held()[0] {
					if n := s.slots - s.in.start[row]; len(held) != n {
						t.Fatalf("round %d, row %d: %d tokens are held after the crop, wanted %d", round, row, len(held), n)
					}
				}
			}
			c.requireSteps(t, "filled", s, shape.Capacity-s.slots, 0.5)
		})
	}
}
