package kvq_test

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/kvqbook/kvqbook/internal/kvqhook"
	"github.com/kvqbook/kvqbook/internal/testbackend"
	. "github.com/kvqbook/kvqbook/kvq"
)

// What is said of a prompt beforehand is what the device has after it: for rows that fill the
// window, that do not, and of one token.
func TestCodedOfPrompt(t *testing.T) {
	const tokens, dim = 170, 32
	starts := []int32{0, 45, 169}
	for name, c := range map[string]struct {
		config Config
		want   int // of the first row
	}{
		"full precision":   {Config{}, 0},
		"whole prompts":    {Config{Backend: Quanto, NBits: 4, QGroupSize: 32, ResidualLength: 8}, tokens},
		"newest are exact": {Config{Backend: Blocks, NBits: 4, QGroupSize: 32, ResidualLength: 64, AxisKey: PerChannel}, 96}, // 170 - 64, in whole blocks of 32
	} {
		t.Run(name, func(t *testing.T) {
			plan := newPlan(t, c.config, Shape{Layers: 1, Batch: len(starts), KVHeads: 1, HeadDim: dim, Capacity: 256, DType: dtypes.Float32})
			exec := MustNewExec(testbackend.XLA(t), func(start *Node) []*Node {
				cache := plan.Init(start)
				x := Sin(ConvertDType(IotaFull(start.Graph(), shapes.Make(dtypes.Int32, len(starts), 1, tokens, dim)), dtypes.Float32))
				cache.Layer(0).Append(x, x)
				cache.Layer(0).Attend(x)
				cache.Advance()
				return cache.Nodes()
			})
			defer exec.Finalize()
			want, err := Coded(plan, exec.MustCall(starts))
			if err != nil {
				t.Fatal(err)
			}
			if want[0] != c.want {
				t.Errorf("%d tokens of the first row are codes, want %d", want[0], c.want)
			}
			for i, start := range starts {
				if got := kvqhook.CodedOfPrompt(plan, tokens-int(start)); got != want[i] {
					t.Errorf("row %d: %d, on the device %d", i, got, want[i])
				}
			}
		})
	}
}
