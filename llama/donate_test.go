package llama

import (
	"context"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// A cache that goes through a decode call is held once: XLA writes the new one in its place, on
// each of several devices too. Package evaluate says the same of scoring.
func TestDecodeHoldsTheCacheOnce(t *testing.T) {
	testlane.Slow(t, "compiles and measures large caches")
	for _, devices := range []int{1, 2} {
		m := shardedModel(t, "tiny-llama2-gqa", devices)
		for _, config := range []kvq.Config{{}, {Backend: kvq.Quanto, NBits: 4, QGroupSize: 16, ResidualLength: 16}} {
			g := mustGenerator(t, m, config)
			plan, err := g.plan(2, 256)
			if err != nil {
				t.Fatal(err)
			}
			key := decodeKey{pick: GenerateConfig{MaxNewTokens: 8}.picker(m.config, 2).Kind}
			program := g.startDecode(plan, key)
			if err := program.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
			if heads := plan.Shape().KVHeads; heads != 2/devices {
				t.Errorf("%d heads on each of %d devices, want %d", heads, devices, 2/devices)
			}
			if got, want := program.Of.needs.Reused, plan.Memory().Total(); got != want {
				t.Errorf("%s on %d devices: %d bytes of the cache written in place, want all %d", config, devices, got, want)
			}
		}
	}
}
