package numbers_test

import (
	"math"
	"math/rand/v2"
	"testing"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.
	"github.com/kvqbook/kvqbook/kvq/internal/numbers"
)

// Codes can lie nearer to the keys and still ruin the attention: least squares cut off the one
// channel that the query looks at, to be nearer to the thirty-one that it does not. Caches are
// therefore judged by what the model says (docs/quality.md), and not by this error.
func TestSmallerErrorCanRuinAttention(t *testing.T) {
	const tokens, g, loud, bits = 24, 32, 5, 2
	r := rand.New(rand.NewPCG(5, 8))
	keys := make([][]float32, tokens)
	for i := range keys {
		keys[i] = make([]float32, g)
		for d := range keys[i] {
			keys[i][d] = float32(r.NormFloat64())
		}
		keys[i][loud] = 4 + 4*float32(i%4)/3 // 4 to 8
	}
	got := evaluate(t, func(xs []*Node) (out []*Node) {
		for _, fit := range []*numbers.Quantizer{numbers.MinMax, numbers.LeastSquares} {
			codes, scale, zero := quantizeStored(xs[0], 1, bits, nil, numbers.ScaleFloat32, fit)
			out = append(out, dequantizeStored(codes, scale, zero, bits, numbers.ScaleFloat32))
		}
		return out
	}, keys)
	// weights are the attention of a query that looks at the loud channel.
	weights := func(key func(i, d int) float32) []float64 {
		w, sum := make([]float64, tokens), 0.0
		for i := range w {
			w[i] = math.Exp(3 * float64(key(i, loud)))
			sum += w[i]
		}
		for i := range w {
			w[i] /= sum
		}
		return w
	}
	right := weights(func(i, d int) float32 { return keys[i][d] })
	var wrong, divergence [2]float64
	for n, decoded := range got {
		p := weights(func(i, d int) float32 { return decoded[i*g+d] })
		for i := range p {
			divergence[n] += right[i] * math.Log(right[i]/p[i])
			for d := range g {
				wrong[n] += math.Pow(float64(decoded[i*g+d]-keys[i][d]), 2) / (tokens * g)
			}
		}
	}
	t.Logf("minimum and maximum: squared error %.3f, divergence of the attention %.4f; least squares: %.3f, %.4f", wrong[0], divergence[0], wrong[1], divergence[1])
	if wrong[1] >= wrong[0] {
		t.Errorf("squared error %.3f after the search, %.3f before: this input does not mislead", wrong[1], wrong[0])
	}
	if divergence[0] > 0.01 || divergence[1] < 0.1 {
		t.Errorf("the attention diverges by %.4f with minimum and maximum, wanted hardly; by %.4f with least squares, wanted much", divergence[0], divergence[1])
	}
}
