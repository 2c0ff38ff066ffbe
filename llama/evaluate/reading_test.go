package evaluate

import (
	"context"
	"math"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testlane"
	"github.com/kvqbook/kvqbook/kvq"
)

// A text that is read at once, a layer after the other, has the predictions of one that goes
// through the cache token by token: of every policy, with what feedback learns from the prompt and
// from the weights, with other bits in a layer, and with texts that end inside of a block.
func TestReadIsScore(t *testing.T) {
	testlane.Slow(t, "compiles caches both ways")
	m := tiny(t)
	blocks := kvq.Config{Backend: kvq.Blocks, NBitsKey: 4, NBitsValue: 5, QGroupSize: 32, AxisKey: kvq.PerChannel, QGroupSizeValue: 16, ResidualLength: 8,
		Sinks: 2, Scales: kvq.Scale8, QuantizerKey: kvq.Unbiased, QuantizerValue: kvq.Unbiased, RotateKeys: true, RotateValues: true}
	fed := blocks
	fed.TokenScales, fed.FeedbackKey, fed.LayerBits = true, kvq.FeedbackQueries, "1=5/4"
	shared := blocks
	shared.FeedbackKey, shared.FeedbackValue = kvq.FeedbackWeights, kvq.FeedbackOutput
	for name, config := range map[string]kvq.Config{"feedback": fed, "shared metrics": shared, "quanto": quanto} {
		t.Run(name, func(t *testing.T) {
			ctx, o := context.Background(), Options{Prefill: 10}
			kept, err := Keep(ctx, generator(t, kvq.Config{}), longTexts(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer kept.Free()
			o.Kept = kept
			want := Candidate{Config: config}
			if err := want.measure(ctx, m, longTexts(), o); err != nil {
				t.Fatal(err)
			}
			got := Candidate{Config: config}
			if err := Read(ctx, m, longTexts(), []*Candidate{&got}, Options{Prefill: 10}); err != nil {
				t.Fatal(err)
			}
			if want.KL < 1e-5 || math.Abs(got.KL/want.KL-1) > 0.03 || math.Abs(got.Perplexity/want.Perplexity-1) > 2e-3 {
				t.Errorf("KL %g, perplexity %g, want %g, %g", got.KL, got.Perplexity, want.KL, want.Perplexity)
			}
			if got.Agreement != want.Agreement {
				t.Errorf("agreement %g, want %g", got.Agreement, want.Agreement)
			}
		})
	}
}
