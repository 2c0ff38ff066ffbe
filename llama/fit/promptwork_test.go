package fit

import (
	"context"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
	"github.com/kvqbook/kvqbook/llama"
)

// What a prompt needs in passing is one layer's work, by XLA's own figures, as docs/design.md says:
// a second layer adds nothing, nor do the many ranges that a quantizer tries, and logits are those
// of the last column alone.
func TestPromptWorkIsOfOneLayer(t *testing.T) {
	testlane.Slow(t, "compiles long prompts")
	backend := testbackend.XLA(t)
	const rows, columns = 4, 768 // more than one block of queries
	searched := kvq.Config{Backend: kvq.Blocks, NBits: 2, QGroupSize: 32, AxisKey: kvq.PerChannel, ResidualLength: 32, QuantizerKey: kvq.Unbiased}
	for name, cache := range map[string]kvq.Config{"full": {}, "tutorial": kvq.Tutorial(), "searched": searched} {
		t.Run(name, func(t *testing.T) {
			work := map[int]int64{}
			for _, layers := range []int{1, 2} {
				r := Request{DType: dtypes.Float32, Batch: rows, Prompt: columns, Cache: cache, Model: llama.Config{Architecture: "llama", VocabSize: 32000, HiddenSize: 192,
					IntermediateSize: 384, Layers: layers, Heads: 3, KVHeads: 3, HeadDim: 64, MaxPositions: 8192, RMSNormEps: 1e-5, RopeTheta: 10000, TieEmbeddings: true}}
				compiled, err := r.Compile(context.Background(), backend, PromptPart)
				if err != nil {
					t.Fatal(err)
				}
				needs := compiled.Prompt.Temporary
				if needs == 0 {
					t.Fatal("XLA says nothing about memory")
				}
				work[layers] = needs
				if predicted := r.promptWork(true, false, false); float64(needs) > 1.5*float64(predicted) {
					t.Errorf("%d layers: XLA needs %d bytes in passing, predicted %d", layers, needs, predicted)
				}
			}
			t.Logf("bytes in passing by layers: %v; logits of all columns would be %d", work, rows*columns*32000*4)
			if float64(work[2]) > 1.02*float64(work[1]) {
				t.Errorf("2 layers need %d bytes in passing, 1 needs %d: want about as many", work[2], work[1])
			}
		})
	}
}
